"""Class centroids of features, and how alike those of two domains are."""

from __future__ import annotations

import torch
from torch import Tensor

from t2sda.losses.numerics import l2_normalize


class ClassSums:
    """Sums of the features of every class: (C, D) numbers, however many features are added.

    Args:
        num_classes: C.
        channels: D.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        self.sums = torch.zeros(num_classes, channels, dtype=torch.float64)
        self.counts = torch.zeros(num_classes, dtype=torch.int64)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add features by their class.

        Args:
            features: (N, D) of any floating type.
            labels: (N,) in [0, C); what is beyond, such as IGNORE_INDEX, does not count.
        """
        counted = labels < len(self.counts)
        labels = labels[counted].long()
        self.sums.index_add_(0, labels, features[counted].double())
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    @property
    def centroids(self) -> Tensor:
        """(C, D) float64 means μ; NaN for a class without features."""
        return self.sums / self.counts[:, None]


def centroid_similarity(source: Tensor, target: Tensor) -> Tensor:
    """Cosine between the centroids of a class in two domains, as in Fig. 2.

    Args:
        source, target: (C, D) centroids.
    Returns:
        (C,) in [-1, 1]; NaN for a class that a domain lacks.
    """
    return (l2_normalize(source) * l2_normalize(target)).sum(dim=1)
