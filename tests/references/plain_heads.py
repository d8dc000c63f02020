"""The heads in the order of their papers: project, upsample, concatenate, then convolve.

They read the parameters of our heads by name and do nothing else that ours do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainSegFormer(nn.Module):
    """SegFormer's head; the coarsest level is concatenated first."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        projected = [
            upsampled(linear(layer.proj, level), size)
            for layer, level in zip(self.head.linear_c, features, strict=True)
        ]
        fused = self.head.linear_fuse.conv(torch.cat(projected[::-1], dim=1))
        return self.head.linear_pred(self.head.dropout(self.head.linear_fuse.bn(fused).relu()))


class PlainDAFormer(nn.Module):
    """DAFormer's head: every ASPP branch on the concatenated pyramid."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        layers = self.head.embed_layers.values()
        pyramid = torch.cat(
            [
                upsampled(linear(layer.proj, level), size)
                for layer, level in zip(layers, features, strict=True)
            ],
            dim=1,
        )
        fuse = self.head.fuse_layer
        branches = torch.cat([branch(pyramid) for branch in fuse.aspp_modules], dim=1)
        return self.head.conv_seg(self.head.dropout(fuse.bottleneck(branches)))


class PlainLight(nn.Module):
    """The light head: one 1x1 convolution on the concatenated backbone features."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        pyramid = torch.cat([upsampled(level, size) for level in features], dim=1)
        weight = torch.cat([layer.weight for layer in self.head.projections], dim=1)
        fused = self.head.fuse(F.conv2d(pyramid, weight))
        return self.head.classifier(self.head.dropout(fused))


def linear(layer: nn.Linear, features: Tensor) -> Tensor:
    """A linear layer on the channels of (B, D, h, w)."""
    return (
        layer(features.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, features.shape[-2:])
    )


def upsampled(features: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear to `size`."""
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
