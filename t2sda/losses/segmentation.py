"""Cross entropy of a segmentation, Eq. (1) and (S1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from t2sda.losses.numerics import at_least_float32
from t2sda.structures import IGNORE_INDEX


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None = None,
    normalizer: Tensor | None = None,
) -> Tensor:
    """Weighted cross entropy, Eq. (1) without `pixel_weight` and Eq. (S1) with it.

    The denominator is the number of ALL pixels, ignored ones too, as in the baseline's code
    (docs/fidelity.md, A1); dividing by the valid ones would enlarge the gradients of crops with
    padding.

    Args:
        logits: (B, C, H, W); the loss is taken in float32 or better.
        labels: (B, H, W) int64 in [0, C) or IGNORE_INDEX, which contributes nothing.
        pixel_weight: (B, H, W), or None for 1 everywhere.
        normalizer: scalar denominator in place of B*H*W, for a mini-batch spread over ranks.
    Returns:
        Scalar; 0 (with a gradient of 0) where every pixel is ignored.
    Raises:
        ValueError: if shapes do not fit, or, on the CPU, if a label is out of range. On a GPU that
            would cost a synchronisation; datasets check their labels when they are read.
    """
    _check_shapes(logits, labels, pixel_weight)
    losses = _pixel_losses(logits, labels)
    if pixel_weight is not None:
        losses = losses * pixel_weight
    return losses.sum() / (labels.numel() if normalizer is None else normalizer)


def _pixel_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, H, W) cross entropy of every pixel, 0 where ignored."""
    try:
        return F.cross_entropy(
            at_least_float32(logits), labels, ignore_index=IGNORE_INDEX, reduction="none"
        )
    except IndexError as error:
        found = sorted(set(labels.unique().tolist()))
        raise ValueError(
            f"labels hold the ids {found}, but the model has {logits.shape[1]} classes: ids must "
            f"lie in [0, {logits.shape[1]}) or be {IGNORE_INDEX}; check the dataset's taxonomy"
        ) from error


def _check_shapes(logits: Tensor, labels: Tensor, pixel_weight: Tensor | None) -> None:
    expected = (logits.shape[0], *logits.shape[2:])
    if labels.shape != expected:
        raise ValueError(
            f"labels are {tuple(labels.shape)}, logits {tuple(logits.shape)}: "
            f"labels must be {expected}; upsample the logits to the labels first"
        )
    if pixel_weight is not None and pixel_weight.shape != expected:
        raise ValueError(f"pixel_weight is {tuple(pixel_weight.shape)}, but labels are {expected}")
