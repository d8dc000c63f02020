"""Entropy of predictions, what minimum-entropy adaptation minimises (ADVENT, Vu et al., 2019)."""

from __future__ import annotations

import math

from torch import Tensor

from t2sda.losses.numerics import at_least_float32


def mean_normalized_entropy(logits: Tensor) -> Tensor:
    """Mean over pixels of the entropy of the softmax, divided by log C.

    Args:
        logits: (B, C, H, W) with C > 1; the entropy is taken in float32 or better.
    Returns:
        Scalar in [0, 1]: 1 where all classes are equally likely.
    """
    log_probs = at_least_float32(logits).log_softmax(dim=1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=1)  # (B, H, W)
    return entropy.mean() / math.log(logits.shape[1])
