"""Adversarial adaptation of the output space: what a discriminator sees, and how wrong it is.

AdaptSegNet (Tsai et al., CVPR 2018) shows it the softmax, ADVENT (Vu et al., CVPR 2019) the
weighted self-information. Its answer is 0 on the source and 1 on the target.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.losses.numerics import at_least_float32

SOURCE, TARGET = 0.0, 1.0
"""What a discriminator is to say."""
GAN_LOSSES = ("vanilla", "least_squares")


def softmax(logits: Tensor) -> Tensor:
    """(B, C, H, W) logits -> class probabilities in float32 or better."""
    return at_least_float32(logits).softmax(dim=1)


def self_information(logits: Tensor) -> Tensor:
    """Weighted self-information I = -p log p / log C of every class, ADVENT's Eq. (6).

    Args:
        logits: (B, C, H, W) with C > 1; computed in float32 or better.
    Returns:
        (B, C, H, W); summed over classes it is the normalised entropy.
    """
    log_probs = at_least_float32(logits).log_softmax(dim=1)
    return -(log_probs.exp() * log_probs) / math.log(logits.shape[1])


DISCRIMINATOR_INPUTS = {"softmax": softmax, "self_information": self_information}
"""By name: (B, C, H, W) logits -> what the discriminator sees."""


def discriminator_error(answers: Tensor, domain: float, gan: str) -> Tensor:
    """How far a discriminator's answers are from a domain, as a mean over its grid.

    Args:
        answers: (B, 1, h, w) before any sigmoid.
        domain: SOURCE or TARGET.
        gan: "vanilla", binary cross entropy with logits; "least_squares", the squared difference.
    Returns:
        Scalar, in float32 or better.
    """
    answers = at_least_float32(answers)
    wanted = torch.full_like(answers, domain)
    if gan == "least_squares":
        return F.mse_loss(answers, wanted)
    return F.binary_cross_entropy_with_logits(answers, wanted)
