"""Values of pixels, sampled on the grid of the features."""

from __future__ import annotations

import torch
from torch import Tensor

from t2sda.structures import FeatureSpec


def labels_on_grid(labels: Tensor, spec: FeatureSpec) -> Tensor:
    """Labels at the resolution of the features: those of the pixels at the cells' centres.

    Eq. (4) to (8) index labels and features by the same j (docs/fidelity.md, B7). Where a cell's
    centre is depends on the network (docs/fidelity.md, E7).

    Args:
        labels: (B, H, W) of any dtype: labels, confidences (docs/fidelity.md, B8) or masks.
        spec: of the features.
    Returns:
        (B, ceil(H / stride), ceil(W / stride)) of the same dtype.
    """
    size = (labels.shape[1], labels.shape[2])
    row, column = (
        _cell_centres(count, side, spec).to(labels.device)
        for count, side in zip(spec.grid_of(size), size, strict=True)
    )
    return labels[:, row[:, None], column]


def _cell_centres(count: int, side: int, spec: FeatureSpec) -> Tensor:
    """Pixel at the centre of every cell along a side; the last cell's may lie beyond the image."""
    # Whole numbers all the way: a stride may be a fraction.
    firsts = torch.arange(count) * spec.stride.numerator // spec.stride.denominator
    return (firsts + int(spec.offset)).clamp(max=side - 1)
