"""Contrast with class distributions, as SePiCo (Xie et al., TPAMI 2023) has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from t2sda.losses.numerics import at_least_float32
from t2sda.structures import IGNORE_INDEX

MIN_SHARE = 0.75
"""Of a cell's pixels that must be of one class for the cell to count as that class."""


def distribution_contrast(
    queries: Tensor,
    labels: Tensor,
    means: Tensor,
    variances: Tensor,
    known: Tensor,
    temperature: float,
) -> Tensor:
    """Contrast of every query with infinitely many samples of Gaussian classes, in closed form.

    With q of class y: -q·μ_y / τ + log Σ_k exp(q·μ_k / τ + q²·σ²_k / (2 τ²)), the bound of the
    expected InfoNCE by Jensen's inequality; k are the classes that are known.

    Args:
        queries: (N, D) unit vectors.
        labels: (N,) int64 in [0, C), or others for queries that do not count.
        means: (C, D) μ.
        variances: (C, D) σ², of every channel by itself.
        known: (C,) bool: classes that have moments.
        temperature: τ.
    Returns:
        (N,) in float32 or better; 0 where the label is none of a known class.
    """
    queries, means = at_least_float32(queries), at_least_float32(means)
    counted = (labels >= 0) & (labels < len(means))
    index = labels.where(counted, 0)
    counted = counted & known[index]
    similarity = queries @ means.T / temperature  # (N, C)
    spread = queries.square() @ at_least_float32(variances).T / (2 * temperature**2)
    logits = (similarity + spread).masked_fill(~known, float("-inf"))
    own = similarity.gather(1, index[:, None])[:, 0]
    return (logits.where(known.any(), 0).logsumexp(dim=1) - own).where(counted, 0)


def majority_labels(labels: Tensor, num_classes: int, grid: tuple[int, int]) -> Tensor:
    """Labels at the resolution of the features, of cells that one class fills to MIN_SHARE.

    Args:
        labels: (B, H, W) int64 in [0, C) or IGNORE_INDEX.
        num_classes: C.
        grid: (h, w).
    Returns:
        (B, h, w) int64, IGNORE_INDEX elsewhere.
    """
    of_class = F.one_hot(labels.clamp(max=num_classes), num_classes + 1)[..., :num_classes]
    shares = F.adaptive_avg_pool2d(of_class.movedim(-1, 1).float(), grid)  # (B, C, h, w)
    largest, found = shares.max(dim=1)
    return found.where(largest >= MIN_SHARE, IGNORE_INDEX)
