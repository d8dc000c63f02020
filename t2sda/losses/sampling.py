"""Values of pixels, sampled on the grid of the features."""

from __future__ import annotations

import torch
from torch import Tensor


def labels_on_grid(labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Labels at the resolution of the features, by nearest neighbour.

    Eq. (4) to (8) index labels and features by the same j; labels are reduced to the feature grid
    (docs/fidelity.md, B7). Row i takes row floor(i·H / h), as F.interpolate(mode="nearest") does,
    but in integers.

    Args:
        labels: (B, H, W) of any dtype: labels, confidences (docs/fidelity.md, B8) or masks.
        grid: (h, w) of the features.
    Returns:
        (B, h, w) of the same dtype.
    """
    (height, width), (rows, columns) = labels.shape[1:], grid
    row = torch.arange(rows, device=labels.device) * height // rows
    column = torch.arange(columns, device=labels.device) * width // columns
    return labels[:, row[:, None], column]
