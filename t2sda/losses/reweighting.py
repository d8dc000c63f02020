"""Class weights of a loss: dynamic, Eq. (12) and (13), and static (supplement C.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from t2sda.losses.numerics import at_least_float32

CITYSCAPES_CLASS_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)
"""The supplement's weights for simple re-weighting, in the order of the 19 train ids."""


def dynamic_class_weights(
    class_confidence: Tensor, exponent: float, counted: Tensor | None = None
) -> Tensor:
    """w* of Eq. (12): the less confident a class, the larger its weight.

    The gap is divided by its maximum (Algorithm 1 writes min; the constant cancels:
    docs/fidelity.md, B2) and raised to the power β (Algorithm 1 writes `* beta`, which would
    cancel: B3).

    Args:
        class_confidence: (C,) conf(c) in [0, 1].
        exponent: β; 0 weighs all classes alike.
        counted: (C,) bool, classes that get a weight; None: all of them. The others' is 0, unless
            none is counted: then all are (docs/fidelity.md, B4).
    Returns:
        (C,) weights that sum to 1; uniform if every class is fully confident.
    """
    gaps = (1 - at_least_float32(class_confidence)).clamp(min=0)  # softmax may exceed 1 by rounding
    if counted is None:
        counted = torch.ones_like(gaps, dtype=torch.bool)
    counted = counted | ~counted.any()  # of no class: all of them, without asking the device
    largest = torch.where(counted, gaps, 0).max()
    weights = torch.where(largest > 0, gaps / largest, torch.ones_like(gaps)) ** exponent
    weights = torch.where(counted, weights, 0)
    return weights / weights.sum()


def class_confidence(confidence: Tensor, pseudo_labels: Tensor, num_classes: int) -> Tensor:
    """conf(c) of Eq. (13): mean confidence of the target pixels predicted as class c.

    Args:
        confidence: (B, H, W) largest class probability, at prediction resolution
            (docs/fidelity.md, B8).
        pseudo_labels: (B, H, W) int64 in [0, num_classes) or IGNORE_INDEX.
    Returns:
        (num_classes,), at least float32; 0 for a class that no pixel is predicted as, so that it
        gets the largest weight (docs/fidelity.md, B4).
    """
    sums, counts = class_confidence_sums(confidence, pseudo_labels, num_classes)
    return mean_class_confidence(sums, counts).to(at_least_float32(confidence).dtype)


def class_confidence_sums(
    confidence: Tensor, pseudo_labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of Eq. (13), to be added over ranks: (C,) float64, (C,) int64."""
    bins = pseudo_labels.flatten().clamp(max=num_classes)  # the last bin takes what is ignored
    sums = bins.new_zeros(num_classes + 1, dtype=torch.float64)
    sums.index_add_(0, bins, confidence.flatten().double())
    counts = bins.new_zeros(num_classes + 1).index_add_(0, bins, torch.ones_like(bins))
    return sums[:-1], counts[:-1]


def mean_class_confidence(sums: Tensor, counts: Tensor) -> Tensor:
    """conf(c) of Eq. (13) from its two sums; 0 for a class without pixels."""
    return sums / counts.clamp(min=1)


def static_class_weights() -> Tensor:
    """(19,) the supplement's simple re-weighting, divided by its sum (docs/fidelity.md, B31)."""
    weights = torch.tensor(CITYSCAPES_CLASS_WEIGHTS, dtype=torch.float64)
    return (weights / weights.sum()).float()


def pixel_class_weight(labels: Tensor, class_weights: Tensor) -> Tensor:
    """(B, H, W) the weight of every pixel's class, w*[label]; 0 where ignored.

    The label is the mixed image's, so pasted pixels are weighted too (docs/fidelity.md, B31).
    """
    # One row more than classes: IGNORE_INDEX is clamped to it.
    table = torch.cat([class_weights, class_weights.new_zeros(1)])
    return table[labels.clamp(max=len(class_weights))]
