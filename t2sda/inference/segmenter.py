"""Pictures to labels and, by choice, probabilities: whole or by windows, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from t2sda.data.taxonomies import Taxonomy
from t2sda.inference.windows import segment_by_windows


class SegmentsPictures(Protocol):
    """What `load_model` returns, as far as it is used here."""

    taxonomy: Taxonomy

    def predict(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB each -> (H, W) train ids each."""

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (C, H, W) float32."""


@dataclass(frozen=True)
class Segmentation:
    """What was found in a picture.

    Attributes:
        labels: (H, W) uint8 train ids.
        probabilities: (C, H, W) float16, or None if they were not asked for.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class Segmenter:
    """How pictures are segmented.

    Args:
        model: of any runtime.
        batch_size: neighbours of one size, or windows, at once.
        window: (height, width) of a sliding window; None: the whole picture.
        stride: from one window to the next.
        with_probabilities: keep them.
    """

    model: SegmentsPictures
    batch_size: int = 1
    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (0, 0)
    with_probabilities: bool = False

    def __call__(self, images: list[np.ndarray]) -> list[Segmentation]:
        """Of each picture; raises UserError as the model does."""
        if self.with_probabilities:
            return [_from_probabilities(self._probabilities(image)) for image in images]
        if self.window is None:
            return [Segmentation(labels) for labels in self._predict(images)]
        return [
            Segmentation(
                segment_by_windows(self._predict, image, self.window, self.stride, self.batch_size)
            )
            for image in images
        ]

    def _predict(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return self.model.predict(images, batch_size=self.batch_size)

    def _probabilities(self, image: np.ndarray) -> np.ndarray:
        def of_each(pieces: list[np.ndarray]) -> list[np.ndarray]:
            return [self.model.probabilities(piece).astype(np.float16) for piece in pieces]

        if self.window is None:
            return of_each([image])[0]
        return segment_by_windows(of_each, image, self.window, self.stride)


def _from_probabilities(probabilities: np.ndarray) -> Segmentation:
    return Segmentation(probabilities.argmax(axis=0).astype(np.uint8), probabilities)
