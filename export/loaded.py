"""What `load_model` returns: pictures in, results of their own size out, in any runtime."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.data.taxonomies import Taxonomy
from t2sda.data.transforms import Resize
from t2sda.errors import UserError
from t2sda.images import ImageSource, as_image, is_one_image
from t2sda.inference.framing import Frame, framed_to, framed_within, labels_at_size
from t2sda.modeling.segmentor import SegmentationModel

from .foreign import normalised
from .metadata import Metadata

PathLike = str | os.PathLike[str]
Picture = ImageSource | Tensor
"""What `t2sda.images.as_image` takes."""
Runner = Callable[[np.ndarray], np.ndarray]
"""A batch of pictures as the graph takes them -> its output."""


class LoadedModel(ABC):
    """A network that segments pictures of any size; safe to use from several threads.

    Attributes:
        taxonomy: names and colours of its classes.
        runtime: what runs it: "torch", "onnxruntime", "openvino", "tensorrt" or "tensorrt-rtx".
        max_batch_size: most pictures it takes at once; None: any number.
    """

    taxonomy: Taxonomy
    runtime: str
    max_batch_size: int | None = None

    # A str is a sequence of str too; the first signature that fits counts.
    @overload
    def predict(self, images: Picture, batch_size: int = 1) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Sequence[Picture], batch_size: int = 1) -> list[np.ndarray]: ...
    def predict(
        self, images: Picture | Sequence[Picture], batch_size: int = 1
    ) -> np.ndarray | list[np.ndarray]:
        """Segment a picture, or a list of them, each of its own size.

        Args:
            images: (H, W, 3) uint8 RGB arrays, (3, H, W) uint8 tensors, paths, PIL images, encoded
                files as bytes or open binary files; one, or a list.
            batch_size: of a list, how many neighbours of one size run at once.

        Returns:
            (H, W) uint8 train ids of each.

        Raises:
            UserError: if a file cannot be read, an array is no picture, or the graph takes fewer
                pictures at once.
        """
        return self._for_each(images, self._labels, batch_size)

    @overload
    def logits(self, images: Picture) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def logits(self, images: Sequence[Picture]) -> list[np.ndarray]: ...
    def logits(self, images: Picture | Sequence[Picture]) -> np.ndarray | list[np.ndarray]:
        """The same as `predict`, but (C, H, W) float32 logits of each.

        Raises:
            UserError: also if the file holds labels or probabilities alone.
        """
        return self._for_each(images, self._logits, 1)

    @overload
    def probabilities(self, images: Picture, batch_size: int = 1) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def probabilities(self, images: Sequence[Picture], batch_size: int = 1) -> list[np.ndarray]: ...
    def probabilities(
        self, images: Picture | Sequence[Picture], batch_size: int = 1
    ) -> np.ndarray | list[np.ndarray]:
        """The same as `predict`, but (C, H, W) float32 softmax of each.

        Raises:
            UserError: also if the file holds labels alone.
        """
        return self._for_each(images, self._probabilities, batch_size)

    @abstractmethod
    def _frame(self, image: np.ndarray) -> Frame: ...

    @abstractmethod
    def _labels(self, frames: list[Frame]) -> list[np.ndarray]: ...

    @abstractmethod
    def _logits(self, frames: list[Frame]) -> list[np.ndarray]: ...

    def _probabilities(self, frames: list[Frame]) -> list[np.ndarray]:
        return [torch.from_numpy(own).softmax(dim=0).numpy() for own in self._logits(frames)]

    def _for_each(
        self, images: Any, segment: Callable[[list[Frame]], list[np.ndarray]], batch_size: int
    ) -> Any:
        if is_one_image(images):
            return segment([self._frame(as_image(images))])[0]
        if self.max_batch_size is not None and batch_size > self.max_batch_size:
            raise UserError(
                f"batches of {batch_size}: this file takes at most {self.max_batch_size} at once; "
                f"export with --dynamic for larger batches"
            )
        frames = (self._frame(as_image(image)) for image in images)
        return [result for batch in batches_of(frames, batch_size) for result in segment(batch)]


class CheckpointModel(LoadedModel):
    """The student of a checkpoint, in PyTorch.

    Pictures are resized to fit `bound`, and the logits bilinearly back: what is predicted is what
    was scored.
    """

    runtime = "torch"

    def __init__(
        self,
        model: SegmentationModel,
        taxonomy: Taxonomy,
        bound: tuple[int, int] | None,
        device: torch.device,
    ) -> None:
        self.taxonomy = taxonomy
        self._model = model.to(device).eval()
        self._resize = Resize(bound)
        self._device = device

    def _frame(self, image: np.ndarray) -> Frame:
        return framed_within(image, self._resize)

    @torch.inference_mode()
    def _logits_of(self, frames: list[Frame]) -> Iterator[Tensor]:
        batch = torch.from_numpy(np.stack([frame.image for frame in frames]).transpose(0, 3, 1, 2))
        # Copied: with the strides of the array the network would compute in another order.
        logits = self._model(batch.contiguous().to(self._device))
        for frame, own in zip(frames, logits, strict=True):
            height, width = frame.inner_size
            inner = own[:, :height, :width]
            yield inner if frame.size == frame.inner_size else _resized(inner, frame.size)

    def _labels(self, frames: list[Frame]) -> list[np.ndarray]:
        all_logits = self._logits_of(frames)
        return [own.argmax(dim=0).to(torch.uint8).cpu().numpy() for own in all_logits]

    def _logits(self, frames: list[Frame]) -> list[np.ndarray]:
        return [own.cpu().numpy() for own in self._logits_of(frames)]


class FileModel(LoadedModel):
    """An exported file, in whatever runtime runs it.

    A graph of one size gets every picture as large as it fits, its ratio kept, on a ground of the
    mean colour. A graph of any size gets it as it is, or resized to fit `metadata.image_bound`.
    Results come back at the picture's own size: logits bilinearly, labels (where the file holds
    nothing else) from the nearest pixel.

    Args:
        path: for messages.
        run: batches, as the graph takes them.
        metadata: what the file says about itself, or the user about it.
        runtime: of `run`.
        max_batch_size: see LoadedModel.
        normalises: False for a graph that takes normalised floats.
    """

    def __init__(
        self,
        path: Path,
        run: Runner,
        metadata: Metadata,
        *,
        runtime: str,
        max_batch_size: int | None,
        normalises: bool = True,
    ) -> None:
        self.path = path
        self.run = run
        self.metadata = metadata
        self.taxonomy = metadata.taxonomy
        self.runtime = runtime
        self.max_batch_size = max_batch_size
        self._normalises = normalises

    def _frame(self, image: np.ndarray) -> Frame:
        if self.metadata.image_size is None:
            return framed_within(image, Resize(self.metadata.image_bound))
        mean_colour = tuple(round(value) for value in self.metadata.pixel_mean)
        return framed_to(image, self.metadata.image_size, mean_colour)

    def _labels(self, frames: list[Frame]) -> list[np.ndarray]:
        if self.metadata.output_kind != "labels":
            return [own.argmax(axis=0).astype(np.uint8) for own in self._maps(frames)]
        labels = self._run(frames).astype(np.uint8, copy=False)
        seen = (frames[0].image.shape[0], frames[0].image.shape[1])
        if labels.shape[1:] != seen:  # a foreign graph that leaves up-sampling to its caller
            labels = np.stack([labels_at_size(own, seen) for own in labels])
        return [frame.labels_back(own) for frame, own in zip(frames, labels, strict=True)]

    def _logits(self, frames: list[Frame]) -> list[np.ndarray]:
        kind = self.metadata.output_kind
        if kind != "logits":
            raise UserError(
                f"{self.path}: holds no logits, only {kind}; export it with --output-kind logits"
            )
        return self._maps(frames)

    def _probabilities(self, frames: list[Frame]) -> list[np.ndarray]:
        if self.metadata.output_kind == "probabilities":
            return self._maps(frames)
        return super()._probabilities(frames)

    def _maps(self, frames: list[Frame]) -> list[np.ndarray]:
        """Logits or probabilities, (C, H, W) of each picture."""
        maps = self._run(frames)
        seen = frames[0].image.shape[:2]
        if maps.shape[2:] != seen:  # a foreign graph that leaves up-sampling to its caller
            maps = _resized_batch(torch.from_numpy(maps), seen).numpy()
        return [frame.logits_back(own) for frame, own in zip(frames, maps, strict=True)]

    def _run(self, frames: list[Frame]) -> np.ndarray:
        images = np.stack([frame.image for frame in frames])
        images = images if self._normalises else normalised(images, self.metadata)
        if self.metadata.layout == "nchw":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return self.run(images)


def batches_of(frames: Iterable[Frame], batch_size: int) -> Iterator[list[Frame]]:
    """Neighbours of one size, at most `batch_size` together, in order."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and (len(batch) == batch_size or frame.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return _resized_batch(logits[None], size)[0]


def _resized_batch(logits: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
