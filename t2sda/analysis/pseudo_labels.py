"""How right the teacher's pseudo-labels are where the truth is known, class by class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t2sda.evaluation.confusion import ConfusionMatrix, shares
from t2sda.losses.pseudo_labels import is_confident, pseudo_label_quality_per_image
from t2sda.structures import IGNORE_INDEX


class PseudoLabelScores:
    """Counts of true class and pseudo-label, of all pixels and of the confident ones.

    Args:
        num_classes: C.
        threshold: δ_p, from which on a pixel is confident, as in Eq. (S2).
    """

    def __init__(self, num_classes: int, threshold: float) -> None:
        self.threshold = threshold
        self.all = ConfusionMatrix(num_classes)
        self.confident = ConfusionMatrix(num_classes)
        self._qualities = 0.0
        self._images = 0

    def add(self, pseudo_labels: Tensor, confidence: Tensor, labels: Tensor) -> None:
        """Count an image.

        Args:
            pseudo_labels: (H, W) integers in [0, C).
            confidence: (H, W) largest class probability.
            labels: (H, W) the truth, or IGNORE_INDEX.
        """
        labels = labels.long()
        confident = is_confident(confidence, self.threshold)
        self.all.update(pseudo_labels.numpy(), labels.numpy())
        counted = torch.where(confident, labels, IGNORE_INDEX)
        self.confident.update(pseudo_labels.numpy(), counted.numpy())
        self._qualities += float(pseudo_label_quality_per_image(confidence[None], self.threshold))
        self._images += 1

    @property
    def quality(self) -> float:
        """Mean of q_i, Eq. (S2), over the images; all pixels count, unlabelled ones too."""
        return self._qualities / self._images

    def coverage(self) -> Tensor:
        """(C,) float64: of the pixels that are class c, the share that is confident."""
        counts = self.confident.counts.sum(axis=1), self.all.counts.sum(axis=1)
        return torch.from_numpy(shares(*counts))

    def accuracy(self) -> Tensor:
        """(C,) float64: of the confident pixels that are called class c, the share that is."""
        return _column_accuracy(self.confident.counts)

    def accuracy_of_all(self) -> Tensor:
        """(C,) float64: of all pixels that are called class c, the share that is."""
        return _column_accuracy(self.all.counts)


def _column_accuracy(counts: np.ndarray) -> Tensor:
    return torch.from_numpy(shares(counts.diagonal(), counts.sum(axis=0)))
