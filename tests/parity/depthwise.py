"""Depthwise 3x3 convolutions in float64, for which torch on a CPU has no fast kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

library_conv2d = F.conv2d


class ShiftedProducts(torch.autograd.Function):
    """The convolution as nine products with shifted images; the same sums in another order."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, dilation: int) -> Tensor:
        """(B, D, h, w), padded by `dilation` on all sides, and (D, 1, 3, 3) → (B, D, h, w)."""
        ctx.save_for_backward(features, weight)
        ctx.dilation = dilation
        total = torch.zeros_like(features)
        for row, column, shifted in _shifts(features, dilation):
            total.addcmul_(shifted, weight[:, 0, row, column, None, None])
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """The gradient of the image is a convolution with the kernel turned round."""
        features, weight = ctx.saved_tensors
        of_weight = torch.zeros_like(weight)
        for row, column, shifted in _shifts(features, ctx.dilation):
            of_weight[:, 0, row, column] = (shifted * gradient).sum((0, 2, 3))
        turned = weight.flip(2, 3)
        return ShiftedProducts.apply(gradient, turned, ctx.dilation), of_weight, None


def use_fast_depthwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's conv2d compute depthwise 3x3 convolutions of float64 by shifted products."""
    monkeypatch.setattr(F, "conv2d", conv2d)


def conv2d(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch's, but for the one kind that is slow."""
    depthwise = weight.shape == (groups, 1, 3, 3) and features.shape[1] == groups > 1
    keeps_size = stride in (1, (1, 1)) and padding == dilation
    if not (depthwise and keeps_size and features.dtype == torch.float64):
        return library_conv2d(features, weight, bias, stride, padding, dilation, groups)
    found = ShiftedProducts.apply(features, weight, dilation[0])
    return found if bias is None else found + bias[:, None, None]


def _shifts(features: Tensor, dilation: int) -> Any:
    height, width = features.shape[-2:]
    padded = F.pad(features, (dilation,) * 4)
    for row in range(3):
        for column in range(3):
            top, left = row * dilation, column * dilation
            yield row, column, padded[..., top : top + height, left : left + width]
