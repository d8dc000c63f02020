"""InfoNCE, Eq. (2), with a gradient that is worked out on the way forward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from t2sda.losses.numerics import at_least_float32

CHUNK_ELEMENTS = 2**18
"""Query-negative products computed at once: bounds the memory and stays in a CPU's cache."""


def info_nce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    temperature: float,
    negative_log_weights: Tensor | None = None,
) -> Tensor:
    """InfoNCE of every query, Eq. (2), in float32 or better.

    Keys are constants: only the queries get a gradient, worked out on the way forward, so that
    nothing of the size of the scores is kept for the way back.

    Args:
        queries: (..., Q, D) unit vectors.
        positives: (..., Q, D) or (..., 1, D) unit vectors.
        negatives: (..., m, D) unit vectors, shared by the Q queries.
        temperature: τ.
        negative_log_weights: (..., 1, m) log of how often each negative counts, -inf for never but
            not for all; None: once each.

    Returns:
        (..., Q).
    """
    queries = at_least_float32(queries)
    positives, negatives = positives.to(queries.dtype), negatives.to(queries.dtype)
    return _InfoNce.apply(queries, positives, negatives, temperature, negative_log_weights)


class _InfoNce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        temperature: float,
        negative_log_weights: Tensor | None,
    ) -> Tensor:
        scaled = queries / temperature
        needs_gradient = ctx.needs_input_grad[0]
        parts = [
            _log_sum_exp(part, negatives, negative_log_weights, needs_gradient)
            for part in scaled.split(_rows_at_once(queries, negatives), dim=-2)
        ]
        highest_and_sum = torch.cat([part[0] for part in parts], dim=-2)
        # The loss is -log(e^p / (e^p + Σ e^n)) = softplus(margin).
        margin = highest_and_sum - (scaled * positives).sum(dim=-1, keepdim=True)
        if needs_gradient:
            mean_negative = torch.cat([part[1] for part in parts], dim=-2)
            gradient = mean_negative.sub_(positives).mul_(margin.sigmoid() / temperature)
            ctx.save_for_backward(gradient)
        return F.softplus(margin).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output[..., None], None, None, None, None


def _log_sum_exp(
    scaled: Tensor, negatives: Tensor, log_weights: Tensor | None, needs_gradient: bool
) -> tuple[Tensor, Tensor]:
    """(..., Q, 1) log Σ e^n of the scores n, and (..., Q, D) its gradient: the mean negative."""
    scores = scaled @ negatives.mT  # (..., Q, m)
    if log_weights is not None:
        scores += log_weights
    highest = scores.amax(dim=-1, keepdim=True)
    scores = scores.sub_(highest).exp_()
    total = scores.sum(dim=-1, keepdim=True)
    mean = (scores @ negatives).div_(total) if needs_gradient else scaled
    return highest + total.log(), mean


def _rows_at_once(queries: Tensor, negatives: Tensor) -> int:
    batch = queries[..., 0, 0].numel() if queries.shape[-2] else 1
    return max(1, CHUNK_ELEMENTS // max(1, batch * negatives.shape[-2]))
