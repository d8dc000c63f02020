"""Distance to ImageNet features on things (DAFormer, Hoyer et al., CVPR 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_SHARE = 0.75
"""Share of a grid cell's pixels that must be of one class for the cell to count as that class."""


def thing_cells(labels: Tensor, thing_ids: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells of the feature grid that one thing class fills to at least MIN_SHARE.

    A share above one half belongs to the cell's most frequent class, so no other class has to be
    counted (docs/fidelity.md, A4). Where the size is no multiple of the grid, cells overlap.

    Args:
        labels: (B, H, W) int64 train ids or IGNORE_INDEX.
        thing_ids: (T,) int64 train ids of the things, on the device of the labels.
        grid: (h, w) of the features.
    Returns:
        (B, h, w) bool.
    """
    of_thing = labels[:, None] == thing_ids.view(-1, 1, 1)
    shares = F.adaptive_avg_pool2d(of_thing.float(), grid)  # (B, T, h, w)
    return (shares >= MIN_SHARE).any(dim=1)


def summed_feature_distance(features: Tensor, reference: Tensor, cells: Tensor) -> Tensor:
    """Euclidean distance of two feature vectors, summed over `cells`.

    Args:
        features, reference: (B, D, h, w).
        cells: (B, h, w) bool.
    Returns:
        Scalar; 0, with a gradient of 0, where no cell counts or the features are the same.
    """
    distance = torch.linalg.vector_norm(features - reference, dim=1)  # (B, h, w)
    return torch.where(cells, distance, 0.0).sum()
