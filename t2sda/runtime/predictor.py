"""What labels images of any size: what `load_model` returns, evaluations score, `infer` runs."""

from __future__ import annotations

import copy
import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, overload

import numpy as np

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.images import ImageSource, as_image, is_one_image

from .letterbox import Frame, Letterbox, resize_labels, resize_maps, softmax
from .metadata import Metadata, OutputKind
from .opened import Runner
from .sliding import sliding

PathLike = str | os.PathLike[str]


class Predictor(ABC):
    """A network that labels images of any size; safe to use from several threads.

    Attributes:
        taxonomy: names and colors of its classes.
        runtime: what runs it, a name of RUNTIMES.
        letterbox: how images are brought to what the network takes.
        max_batch_size: most images it takes at once; None: any number.
        output_kind: what there is before labels are taken; logits give probabilities as well.
        origin: where its weights come from, as far as it is known: "iteration", "branch".
        scored_window: (height, width) that its run scores it by; None: whole, or not known.
        scored_step: from one such window to the next; None: two thirds of it.
    """

    taxonomy: Taxonomy
    runtime: str
    letterbox: Letterbox
    max_batch_size: int | None = None
    output_kind: OutputKind = "logits"
    origin: Mapping[str, str | int] = MappingProxyType({})
    scored_window: tuple[int, int] | None = None
    scored_step: tuple[int, int] | None = None

    def bounded(self, bound: tuple[int, int] | None) -> Self:
        """The same network, with images resized to fit `bound` (height, width); None: as they are.

        What takes images of one size alone stays as it is.
        """
        if self.letterbox.size is not None:
            return self
        other = copy.copy(self)
        other.letterbox = dataclasses.replace(self.letterbox, bound=bound)
        return other

    # A str is a sequence of str too; the first signature that fits counts.
    @overload
    def predict(self, images: ImageSource, batch_size: int = 1) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Sequence[ImageSource], batch_size: int = 1) -> list[np.ndarray]: ...
    def predict(
        self, images: ImageSource | Sequence[ImageSource], batch_size: int = 1
    ) -> np.ndarray | list[np.ndarray]:
        """Label an image, or a list of them, each of its own size.

        Args:
            images: (H, W, 3) uint8 RGB arrays, (3, H, W) uint8 tensors, paths, PIL images, encoded
                files as bytes or open binary files; one, or a list.
            batch_size: of a list, how many neighbours of one size run at once.

        Returns:
            (H, W) uint8 train ids of each.

        Raises:
            UserError: if a file cannot be read, an array is no image, or the graph takes fewer
                images at once.
        """
        return self._for_each(images, self._labels, batch_size)

    @overload
    def logits(self, images: ImageSource, batch_size: int = 1) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def logits(self, images: Sequence[ImageSource], batch_size: int = 1) -> list[np.ndarray]: ...
    def logits(
        self, images: ImageSource | Sequence[ImageSource], batch_size: int = 1
    ) -> np.ndarray | list[np.ndarray]:
        """The same as `predict`, but (C, H, W) float32 logits of each.

        Raises:
            UserError: also if the file holds labels or probabilities alone.
        """
        return self._for_each(images, self._logits, batch_size)

    @overload
    def probabilities(self, images: ImageSource, batch_size: int = 1) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def probabilities(
        self, images: Sequence[ImageSource], batch_size: int = 1
    ) -> list[np.ndarray]: ...
    def probabilities(
        self, images: ImageSource | Sequence[ImageSource], batch_size: int = 1
    ) -> np.ndarray | list[np.ndarray]:
        """The same as `predict`, but (C, H, W) float32 softmax of each.

        Raises:
            UserError: also if the file holds labels alone.
        """
        return self._for_each(images, self._probabilities, batch_size)

    @abstractmethod
    def _labels(self, frames: list[Frame]) -> list[np.ndarray]: ...

    @abstractmethod
    def _logits(self, frames: list[Frame]) -> list[np.ndarray]: ...

    def _probabilities(self, frames: list[Frame]) -> list[np.ndarray]:
        return [softmax(own, axis=0) for own in self._logits(frames)]

    def _for_each(
        self, images: Any, segment: Callable[[list[Frame]], list[np.ndarray]], batch_size: int
    ) -> Any:
        if is_one_image(images):
            return segment([self.letterbox(as_image(images))])[0]
        if self.max_batch_size is not None and batch_size > self.max_batch_size:
            raise UserError(
                f"batches of {batch_size}: this file takes at most {self.max_batch_size} at once; "
                f"export with --dynamic for larger batches"
            )
        frames = (self.letterbox(as_image(image)) for image in images)
        return [result for batch in batches_of(frames, batch_size) for result in segment(batch)]


class FilePredictor(Predictor):
    """An exported file, in whatever runtime runs it.

    A graph of one size gets every image as large as it fits, its ratio kept, on a ground of the
    mean color. A graph of any size gets it as it is, or resized to fit `metadata.image_bound`; one
    that slides gets that in windows.
    Results come back at the image's own size: logits bilinearly, labels (where the file holds
    nothing else) from the nearest pixel. What is no label of a class, or no number, is an error.

    Args:
        path: for messages.
        run: batches, as the graph takes them.
        metadata: what the file says about itself, or the user about it.
        runtime: of `run`.
        max_batch_size: see Predictor.
        input_type: of the graph; one that takes floats gets them normalised.
    """

    def __init__(
        self,
        path: Path,
        run: Runner,
        metadata: Metadata,
        *,
        runtime: str,
        max_batch_size: int | None,
        input_type: str = "uint8",
    ) -> None:
        self.path = path
        self.run = sliding(run, metadata)
        self.metadata = metadata
        self.taxonomy = metadata.taxonomy
        self.letterbox = metadata.letterbox
        self.output_kind = metadata.output_kind
        self.origin = metadata.origin
        self.runtime = runtime
        self.max_batch_size = max_batch_size
        self._input_type = input_type

    def _labels(self, frames: list[Frame]) -> list[np.ndarray]:
        if self.metadata.output_kind != "labels":
            return [own.argmax(axis=0).astype(np.uint8) for own in self._maps(frames)]
        labels = self._labels_of(frames)
        return [frame.labels_back(own) for frame, own in zip(frames, labels, strict=True)]

    def _labels_of(self, frames: list[Frame]) -> list[np.ndarray]:
        """Train ids (h, w) uint8 of each frame, at its size."""
        labels = self._run(frames)
        if labels.ndim == 4 and labels.shape[1] == 1:
            labels = labels[:, 0]
        self._check(labels, labels.ndim == 3, "labels of shape (images, height, width)", frames)
        if labels.min() < 0 or labels.max() >= self.taxonomy.num_classes:
            raise UserError(
                f"{self.path}: gives the labels {labels.min()} to {labels.max()}, but "
                f"{self.taxonomy.name} has the classes 0 to {self.taxonomy.num_classes - 1}; it is "
                f"a file of other classes, or damaged"
            )
        # A graph of others may leave up-sampling to its caller.
        return [resize_labels(own, _size_of(frames)) for own in labels.astype(np.uint8)]

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
        """Logits or probabilities, (C, H, W) of each image."""
        maps = self._run(frames)
        kind, num_classes = self.metadata.output_kind, self.taxonomy.num_classes
        fits = maps.ndim == 4 and maps.shape[1] == num_classes
        self._check(maps, fits, f"{kind} of the {num_classes} classes", frames)
        maps = maps.astype(np.float32, copy=False)
        if not np.isfinite(maps.min()) or not np.isfinite(maps.max()):
            raise no_numbers(self.path, kind)
        size = _size_of(frames)
        return [
            frame.maps_back(resize_maps(own, size)) for frame, own in zip(frames, maps, strict=True)
        ]

    def _check(self, output: np.ndarray, fits: bool, due: str, frames: list[Frame]) -> None:
        if not fits or len(output) != len(frames) or not output.size:
            raise UserError(
                f"{self.path}: gives {output.dtype} of shape {output.shape} for {len(frames)} "
                f"images, not {due}; export the checkpoint again, or describe the file as it is"
            )

    def _run(self, frames: list[Frame]) -> np.ndarray:
        images = np.stack([frame.image for frame in frames])
        if self._input_type != "uint8":
            mean = np.asarray(self.metadata.pixel_mean, dtype=np.float32)
            std = np.asarray(self.metadata.pixel_std, dtype=np.float32)
            images = ((images.astype(np.float32) - mean) / std).astype(self._input_type, copy=False)
        if self.metadata.layout == "nchw":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return self.run(images)


def no_numbers(path: object, kind: str) -> UserError:
    """The error of a network whose output cannot be labels; `kind` is what it gives."""
    return UserError(
        f"{path}: gives {kind} that are no finite numbers, so its labels would mean nothing; its "
        f"weights are damaged, or too large for its precision"
    )


def _size_of(frames: list[Frame]) -> tuple[int, int]:
    return frames[0].image.shape[0], frames[0].image.shape[1]


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
