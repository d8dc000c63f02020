"""Images to labels and, by choice, probabilities: whole or by windows, in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2sda.inference.windows import segment_by_windows
from t2sda.runtime.predictor import Predictor


@dataclass(frozen=True)
class Segmentation:
    """What was found in an image.

    Attributes:
        labels: (H, W) uint8 train ids.
        probabilities: (C, H, W) float16, or None if they were not asked for.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class Segmenter:
    """How images are segmented.

    Args:
        model: of any runtime.
        batch_size: neighbours of one size, or windows, at once.
        window: (height, width) of a sliding window; None: the whole image.
        stride: from one window to the next.
        with_probabilities: keep them.
    """

    model: Predictor
    batch_size: int = 1
    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (0, 0)
    with_probabilities: bool = False

    @property
    def num_images(self) -> int:
        """Images that are worth giving at once: where it goes by windows, each fills batches."""
        return self.batch_size if self.window is None else 1

    def __call__(self, images: list[np.ndarray]) -> list[Segmentation]:
        """Of each image; raises UserError as the model does."""
        if self.window is None:
            found = self._segment(images)
        else:
            found = [
                segment_by_windows(self._segment, image, self.window, self.stride, self.batch_size)
                for image in images
            ]
        if not self.with_probabilities:
            return [Segmentation(labels) for labels in found]
        return [Segmentation(own[-1].astype(np.uint8), own[:-1]) for own in found]

    def _segment(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """Labels (H, W) of each, or what `_labels_last` makes of its probabilities."""
        if not self.with_probabilities:
            return self.model.predict(images, batch_size=self.batch_size)
        found = self.model.probabilities(images, batch_size=self.batch_size)
        return [_labels_last(probabilities) for probabilities in found]


def _labels_last(probabilities: np.ndarray) -> np.ndarray:
    """(C, H, W) float32 -> (C + 1, H, W) float16: probabilities, and the labels behind them.

    Labels are taken before rounding, which makes ties, so that they are those without this kind.
    """
    labels = probabilities.argmax(axis=0, keepdims=True)
    return np.concatenate([probabilities, labels]).astype(np.float16)  # exact up to 2048
