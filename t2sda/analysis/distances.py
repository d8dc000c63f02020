"""How well features separate classes: Eq. (14) and (15) of the paper, image after image.

C holds the classes that the set shows. Both need the centroids of the whole set, so features are
read twice; in between nothing but sums is kept (docs/fidelity.md, B34).
"""

from __future__ import annotations

import torch
from torch import Tensor

from t2sda.losses.numerics import l2_normalize

SAME_CENTRES = 1e-12
"""Squared distance of two centroids, as a share of their squared lengths, that counts as none."""
NO_SIMILARITY = 1e-6
"""Sum of cosines, in absolute value, that counts as none."""


class Discrimination:
    """The second pass: distances of features to the centroids of their own and of other classes.

    Args:
        centroids: (C, D) μ of the first pass; NaN for a class that is not there.
    """

    def __init__(self, centroids: Tensor) -> None:
        self.centroids = centroids.double()
        num_classes = len(centroids)
        self.squares = torch.zeros(num_classes, dtype=torch.float64)
        self.ratios = torch.zeros(num_classes, dtype=torch.float64)
        self.counts = torch.zeros(num_classes, dtype=torch.int64)
        self.left_out = torch.zeros(num_classes, dtype=torch.int64)
        """Features of a class whose denominator in Eq. (15) is zero: they have no ratio."""

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add features by their class; see `ClassSums.add`."""
        counted = labels < len(self.counts)
        labels, features = labels[counted].long(), features[counted].double()
        squares = (features - self.centroids[labels]).square().sum(dim=1)
        ratios = discrimination_ratios(features, labels, self.centroids)
        exist = ratios.isfinite()
        self.counts += torch.bincount(labels, minlength=len(self.counts))
        self.squares.index_add_(0, labels, squares)
        self.ratios.index_add_(0, labels[exist], ratios[exist])
        self.left_out += torch.bincount(labels[~exist], minlength=len(self.counts))

    def center_distances(self) -> Tensor:
        """CCD of every class, (C,) float64; see `class_center_distances`."""
        return class_center_distances(self.squares / self.counts, self.centroids)

    def pixel_distances(self) -> Tensor:
        """PDD of every class, Eq. (15), (C,) float64; the mean is over features with a ratio."""
        return 1 - self.ratios / (self.counts - self.left_out)


def class_center_distances(compactness: Tensor, centroids: Tensor) -> Tensor:
    """CCD, Eq. (14): a class's mean squared distance to its centroid over that between centroids.

    Args:
        compactness: (C,) mean of ‖x − μ_i‖² over the features of class i.
        centroids: (C, D) μ, NaN for a class that is not there.
    Returns:
        (C,); NaN for a class that is not there, that is alone, or whose centroid is another's.
    """
    # Not |a|² + |b|² - 2ab: centroids of a bad network lie close together.
    between = (centroids[:, None] - centroids[None]).square().sum(dim=2)
    lengths = centroids.square().sum(dim=1)
    between[between <= SAME_CENTRES * (lengths[:, None] + lengths)] = torch.nan
    is_there = centroids.isfinite().all(dim=1)
    is_other = is_there[None] & ~torch.eye(len(centroids), dtype=torch.bool)
    terms = torch.where(is_other, compactness[:, None] / between, 0)
    return terms.sum(dim=1) / is_other.sum(dim=1)


def discrimination_ratios(features: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """The summand of Eq. (15): cos(x, μ_i) over the sum of cos(x, μ_j) of the other classes.

    Args:
        features: (N, D).
        labels: (N,) i of every feature.
        centroids: (C, D) μ, NaN for a class that is not there.
    Returns:
        (N,); NaN where the denominator is zero.
    """
    cosines = (l2_normalize(features) @ l2_normalize(centroids).T).nan_to_num(nan=0.0)
    own = cosines.gather(1, labels[:, None])[:, 0]
    others = cosines.sum(dim=1) - own
    return torch.where(others.abs() > NO_SIMILARITY, own / others, torch.nan)
