"""`load_model`: one interface to a trained network, whatever file it is in.

from t2sda import load_model
model = load_model("student.onnx")
labels = model.predict("street.jpg")  # (H, W) uint8 train ids
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from t2sda.data.taxonomies import Taxonomy
from t2sda.data.transforms import Resize
from t2sda.engine.device import choose_device
from t2sda.errors import MissingFileError, UserError
from t2sda.inference.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.inference.framing import Frame, framed_to, framed_within
from t2sda.inference.pictures import check_picture, read_picture
from t2sda.inference.predictor import Predictor

from .deployable import INPUT_NAME
from .metadata import Metadata
from .session import open_session

PathLike = str | os.PathLike[str]
Picture = np.ndarray | PathLike
"""(H, W, 3) uint8 RGB, or the path of a picture file."""

RUNTIMES = ("torch", "onnxruntime")
DEVICES = ("auto", "cpu", "cuda")


class LoadedModel(ABC):
    """A network that segments pictures of any size.

    Attributes:
        taxonomy: names and colours of its classes.
    """

    taxonomy: Taxonomy

    # A str is a sequence of str too; the first signature that fits counts.
    @overload
    def predict(self, images: Picture) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Sequence[Picture]) -> list[np.ndarray]: ...
    def predict(self, images: Picture | Sequence[Picture]) -> np.ndarray | list[np.ndarray]:
        """Segment a picture, or a list of them, each of its own size.

        Args:
            images: (H, W, 3) uint8 RGB arrays, or paths.

        Returns:
            (H, W) uint8 train ids of each.

        Raises:
            UserError: if a file cannot be read, or an array is no picture.
        """
        return _for_each(images, self._labels)

    @overload
    def logits(self, images: Picture) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def logits(self, images: Sequence[Picture]) -> list[np.ndarray]: ...
    def logits(self, images: Picture | Sequence[Picture]) -> np.ndarray | list[np.ndarray]:
        """The same as `predict`, but (C, H, W) float32 logits of each.

        Raises:
            UserError: also if the file holds labels alone.
        """
        return _for_each(images, self._logits)

    @abstractmethod
    def _labels(self, image: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _logits(self, image: np.ndarray) -> np.ndarray: ...


class CheckpointModel(LoadedModel):
    """The student of a checkpoint, in PyTorch.

    Pictures are resized to fit EVALUATION.IMAGE_SIZE of its run, where that is set, and the logits
    bilinearly back: what is predicted is what was scored.
    """

    def __init__(self, path: Path, device: str) -> None:
        torch_device = choose_device(device)
        checkpoint = open_checkpoint(path)
        self.taxonomy = checkpoint.taxonomy
        model = model_of_checkpoint(checkpoint).to(torch_device)
        resize = Resize(checkpoint.cfg.EVALUATION.IMAGE_SIZE or None)
        self._predictor = Predictor(model, resize, torch_device)

    def _labels(self, image: np.ndarray) -> np.ndarray:
        return self._predictor.predict(image)

    def _logits(self, image: np.ndarray) -> np.ndarray:
        return self._predictor.logits(image).cpu().numpy()


class OnnxModel(LoadedModel):
    """A file of `t2sda export onnx`, in ONNX Runtime.

    A graph of one size gets every picture as large as it fits, its ratio kept, on a ground of the
    mean colour. A graph of any size gets it as it is, or resized to fit `metadata.image_bound`.
    Results come back at the picture's own size: logits bilinearly, labels (where the file holds
    nothing else) from the nearest pixel.

    Attributes:
        metadata: what the file says about itself.
    """

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._session = open_session(path, device)
        properties = self._session.get_modelmeta().custom_metadata_map
        self.metadata = Metadata.from_properties(properties, path)
        self.taxonomy = self.metadata.taxonomy

    def _labels(self, image: np.ndarray) -> np.ndarray:
        if self.metadata.output_kind == "logits":
            return torch.from_numpy(self._logits(image)).argmax(dim=0).to(torch.uint8).numpy()
        frame = self._frame(image)
        return frame.labels_back(self._run(frame))

    def _logits(self, image: np.ndarray) -> np.ndarray:
        if self.metadata.output_kind != "logits":
            raise UserError(
                f"{self._path}: holds no logits, only labels; export it with --output-kind logits"
            )
        frame = self._frame(image)
        return frame.logits_back(self._run(frame))

    def _frame(self, image: np.ndarray) -> Frame:
        if self.metadata.image_size is None:
            return framed_within(image, Resize(self.metadata.image_bound))
        mean_colour = tuple(round(value) for value in self.metadata.pixel_mean)
        return framed_to(image, self.metadata.image_size, mean_colour)

    def _run(self, frame: Frame) -> np.ndarray:
        return self._session.run(None, {INPUT_NAME: frame.image[None]})[0][0]


def load_model(path: PathLike, runtime: str | None = None, device: str = "cpu") -> LoadedModel:
    """A trained network, ready to segment.

    Args:
        path: a checkpoint, a run's folder (its newest checkpoint), or an ONNX file of ours.
        runtime: "torch" or "onnxruntime"; by default the one that the file is made for.
        device: "cpu", "cuda", or "auto" for the GPU where there is one that works; what is asked
            for by name is used, or an error.

    Raises:
        MissingFileError: if there is nothing at `path`.
        UserError: if it is none of these, or the runtime or device does not fit or work.
    """
    path = Path(path)
    native = _native_runtime(path)
    if device not in DEVICES:
        raise UserError(f"device '{device}': unknown; one of {', '.join(DEVICES)}")
    if runtime is not None and runtime not in RUNTIMES:
        raise UserError(f"runtime '{runtime}': unknown; one of {', '.join(RUNTIMES)}")
    if runtime not in (None, native):
        raise UserError(f"{path}: is a file for {native}; {runtime} cannot run it")
    if native == "onnxruntime":
        return OnnxModel(path, device)
    importlib.import_module("t2sda.builtin")  # fills the registries that the checkpoint names
    return CheckpointModel(path, device)


def _native_runtime(path: Path) -> str:
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    return "onnxruntime" if path.suffix.lower() == ".onnx" and path.is_file() else "torch"


def _for_each(images: Any, segment: Callable[[np.ndarray], np.ndarray]) -> Any:
    if isinstance(images, (np.ndarray, str, os.PathLike)):
        return segment(_as_array(images))
    return [segment(_as_array(image)) for image in images]


def _as_array(image: Picture) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_picture(Path(image))
    check_picture(image)
    return image
