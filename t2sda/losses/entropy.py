"""Entropy of predictions (ADVENT, Vu et al., 2019), and their distance from uniform (CRST)."""

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


def uniform_cross_entropy(logits: Tensor, counted: Tensor, normalizer: Tensor) -> Tensor:
    """Cross entropy of the softmax with the uniform distribution: CRST's MRKLD (Zou et al., 2019).

    Up to the constant log C it is the KL divergence from uniform to the prediction; it keeps a
    network from being surer than pseudo-labels deserve.

    Args:
        logits: (B, C, H, W); the loss is taken in float32 or better.
        counted: (B, H, W) bool, the pixels that it is summed over.
        normalizer: scalar denominator.
    Returns:
        Scalar: the sum over pixels of -1/C Σ_c log p_c, divided by `normalizer`.
    """
    pixel_losses = -at_least_float32(logits).log_softmax(dim=1).mean(dim=1)
    return pixel_losses.where(counted, 0).sum() / normalizer
