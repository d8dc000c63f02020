"""How far the teacher's pseudo-labels can be trusted, Eq. (S2), (8) and (9)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from t2sda.losses.numerics import at_least_float32
from t2sda.structures import IGNORE_INDEX


def pseudo_label_quality(confidence: Tensor, threshold: float) -> Tensor:
    """Share of confident pixels in the whole batch, q of Eq. (S2).

    One scalar for all images, and `>=`, as in DACS and DAFormer; the paper prints one q for each
    image, and `>` (docs/fidelity.md, B17). Ranks with equally many pixels average it.

    Args:
        confidence: (B, H, W) largest class probability.
        threshold: δ_p, 0.968 in the paper.
    Returns:
        Scalar in [0, 1].
    """
    return pseudo_label_quality_per_image(confidence, threshold).mean()


def pseudo_label_quality_per_image(confidence: Tensor, threshold: float) -> Tensor:
    """Share of confident pixels in every image, q_i of Eq. (S2) with `>=`: (B, H, W) -> (B,)."""
    dtype = torch.promote_types(confidence.dtype, torch.float32)
    return is_confident(confidence, threshold).to(dtype).mean(dim=(1, 2))


def is_confident(confidence: Tensor, threshold: float) -> Tensor:
    """Where a pseudo-label counts as confident in Eq. (S2), `>=` (docs/fidelity.md, B17)."""
    return confidence >= threshold


def confidence_threshold(confidence: Tensor, unreliable_fraction: float) -> Tensor:
    """γ of Eq. (9): the 100·α-th percentile of the batch's confidences, linearly interpolated.

    Over the batch, as in line 23 of Algorithm 1; Eq. (9) sums over one image
    (docs/fidelity.md, B9).

    Args:
        confidence: any shape, at least one element; no limit on their number.
        unreliable_fraction: α in [0, 1].
    Returns:
        Scalar; pixels with a confidence below it are the unreliable ones.
    Raises:
        ValueError: if α is not in [0, 1].
    """
    if not 0 <= unreliable_fraction <= 1:
        raise ValueError(f"unreliable_fraction is {unreliable_fraction}; it must lie in [0, 1]")
    flat = at_least_float32(confidence).flatten()
    rank = unreliable_fraction * (flat.numel() - 1)
    ordered = flat.sort().values  # CUDA's kthvalue has no deterministic form
    below, above = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return torch.lerp(below, above, rank - math.floor(rank))


def unreliable_labels(pseudo_labels: Tensor, confidence: Tensor, threshold: Tensor) -> Tensor:
    """The candidates of Eq. (8): pseudo-labels where confidence < γ, IGNORE_INDEX elsewhere.

    Args:
        pseudo_labels, confidence: (B, h, w) on the feature grid (docs/fidelity.md, B8).
        threshold: γ of Eq. (9).
    """
    return torch.where(confidence < threshold, pseudo_labels, IGNORE_INDEX)
