"""Images to labels and, by choice, probabilities: whole or by windows, in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.inference.windows import segment_by_mean, segment_by_windows
from t2sda.runtime.letterbox import softmax
from t2sda.runtime.predictor import Predictor

FULL_CONFIDENCE = 255
"""Level of a confidence of 1."""


@dataclass(frozen=True)
class Segmentation:
    """What was found in an image.

    Attributes:
        labels: (H, W) uint8 train ids; IGNORE_INDEX where the network is not sure enough.
        probabilities: (C, H, W) float16, or None if they were not asked for.
        confidence: (H, W) uint8, the largest probability times FULL_CONFIDENCE, rounded; None if it
            was not asked for.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None = None
    confidence: np.ndarray | None = None


@dataclass(frozen=True)
class Segmenter:
    """How images are segmented.

    Args:
        model: of any runtime.
        batch_size: neighbours of one size, or windows, at once.
        window: (height, width) of a sliding window; None: the whole image.
        stride: from one window to the next.
        with_probabilities: keep them.
        with_confidence: keep it.
        min_confidence: pixels whose largest probability is below it get no class.
        averages: the mean of logits where windows overlap, of a model that gives them; else a pixel
            gets what the window says in whose middle it lies.
    """

    model: Predictor
    batch_size: int = 1
    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (0, 0)
    with_probabilities: bool = False
    with_confidence: bool = False
    min_confidence: float = 0.0
    averages: bool = False

    @property
    def num_images(self) -> int:
        """Images that are worth giving at once: where it goes by windows, each fills batches."""
        return self.batch_size if self.window is None else 1

    def __call__(self, images: list[np.ndarray]) -> list[Segmentation]:
        """Of each image; raises UserError as the model does."""
        if self.window is None:
            found = self._segment(images)
        else:
            found = [self._by_windows(image, self.window) for image in images]
        if not self._needs_probabilities:
            return [Segmentation(labels) for labels in found]
        return [self._taken_apart(layers) for layers in found]

    @property
    def _needs_probabilities(self) -> bool:
        return self.with_probabilities or self.with_confidence or self.min_confidence > 0

    def _by_windows(self, image: np.ndarray, window: tuple[int, int]) -> np.ndarray:
        if self.averages:
            return segment_by_mean(
                self._logits, self._finished, image, window, self.stride, self.batch_size
            )
        return segment_by_windows(self._segment, image, window, self.stride, self.batch_size)

    def _logits(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return self.model.logits(images, batch_size=self.batch_size)

    def _finished(self, logits: np.ndarray) -> np.ndarray:
        """Logits (C, H, W) -> labels (H, W), or `_layers`."""
        if not self._needs_probabilities:
            return logits.argmax(axis=0).astype(np.uint8)
        return self._layers(softmax(logits, axis=0))

    def _segment(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """Labels (H, W) of each, or `_layers`."""
        if not self._needs_probabilities:
            return self.model.predict(images, batch_size=self.batch_size)
        found = self.model.probabilities(images, batch_size=self.batch_size)
        return [self._layers(probabilities) for probabilities in found]

    def _layers(self, probabilities: np.ndarray) -> np.ndarray:
        """(C, H, W) float32 -> (2 or C + 2, H, W): probabilities if kept, confidence, labels.

        Labels and confidence are taken before probabilities are rounded to 16 bits, which makes
        ties, so that they are those without this kind. Both are whole numbers up to 255.
        """
        confidence = probabilities.max(axis=0)
        labels = probabilities.argmax(axis=0)
        labels[confidence < self.min_confidence] = IGNORE_INDEX
        levels = np.rint(confidence * FULL_CONFIDENCE)
        if not self.with_probabilities:
            return np.stack([levels.astype(np.uint8), labels.astype(np.uint8)])
        return np.concatenate([probabilities, levels[None], labels[None]]).astype(np.float16)

    def _taken_apart(self, layers: np.ndarray) -> Segmentation:
        return Segmentation(
            layers[-1].astype(np.uint8),
            layers[:-2] if self.with_probabilities else None,
            layers[-2].astype(np.uint8) if self.with_confidence else None,
        )
