"""The context-aware head of DAFormer (Hoyer et al., CVPR 2022), computed in the cheap order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2sda.modeling.heads.base import Head
from t2sda.modeling.heads.layers import (
    ConvBNReLU,
    Projection,
    column_blocks,
    init_classifier_,
    project,
    resize,
    sum_on_finest_grid,
)
from t2sda.registry import HEADS
from t2sda.structures import FeatureSpec

DILATIONS = (6, 12, 18)


@HEADS.register()
class DAFormerHead(Head):
    """Embed every level, upsample, concatenate, and fuse by depthwise-separable dilated ASPP.

    Names of parameters are the published ones (docs/fidelity.md, A7). There is no image pooling;
    BatchNorm and ReLU stand after depthwise and after pointwise convolutions.

    Args:
        feature_specs: the backbone's levels, finest first.
        num_classes: C.
        channels: of the embeddings and of every ASPP branch.
        dropout: probability of zeroing a channel before the classifier.
    """

    def __init__(
        self,
        feature_specs: Sequence[FeatureSpec],
        num_classes: int,
        channels: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed_layers = nn.ModuleDict(
            {str(i): Projection(spec.channels, channels) for i, spec in enumerate(feature_specs)}
        )
        self.fuse_layer = SeparableASPP(len(feature_specs), channels)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)
        init_classifier_(self.conv_seg)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, num_classes, h_0, w_0); see Head.forward."""
        embedded = [
            embed(level) for embed, level in zip(self.embed_layers.values(), features, strict=True)
        ]
        return self.conv_seg(self.dropout(self.fuse_layer(embedded)))


class SeparableASPP(nn.Module):
    """Atrous spatial pyramid pooling over levels of different grids.

    Its 1x1 branch is computed level by level before upsampling (see `sum_on_finest_grid`). The
    dilated branches see neighbours, which does not commute with upsampling: they work on the
    upsampled and concatenated pyramid.

    Args:
        num_levels: of the pyramid.
        channels: of every level, every branch and the output.
    """

    def __init__(self, num_levels: int, channels: int) -> None:
        super().__init__()
        self.aspp_modules = nn.ModuleList(
            [
                ConvBNReLU(num_levels * channels, channels),
                *(SeparableConv(num_levels * channels, channels, rate) for rate in DILATIONS),
            ]
        )
        self.bottleneck = ConvBNReLU((1 + len(DILATIONS)) * channels, channels, kernel_size=3)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, channels, h_i, w_i) each, finest first → (B, channels, h_0, w_0)."""
        size = levels[0].shape[-2:]
        pointwise, *dilated = self.aspp_modules
        pyramid = torch.cat([resize(level, size) for level in levels], dim=1)
        branches = [self._pointwise(pointwise, levels), *(conv(pyramid) for conv in dilated)]
        return self.bottleneck(torch.cat(branches, dim=1))

    def _pointwise(self, layer: Any, levels: Sequence[Tensor]) -> Tensor:
        parts = column_blocks(layer.conv.weight, len(levels))
        total = sum_on_finest_grid(
            project(level, part) for level, part in zip(levels, parts, strict=True)
        )
        return F.relu(layer.bn(total), inplace=True)


class SeparableConv(nn.Module):
    """Depthwise dilated 3x3, then pointwise, each with BatchNorm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvBNReLU(
            in_channels, in_channels, kernel_size=3, dilation=dilation, groups=in_channels
        )
        self.pointwise_conv = ConvBNReLU(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) → (B, out_channels, h, w)."""
        return self.pointwise_conv(self.depthwise_conv(features))
