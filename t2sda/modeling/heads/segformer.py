"""The all-MLP head of SegFormer (Xie et al., NeurIPS 2021), computed in the cheap order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    sum_on_finest_grid,
)
from t2sda.registry import HEADS
from t2sda.structures import FeatureSpec


@HEADS.register()
class SegFormerHead(Head):
    """Project every level, upsample, concatenate, fuse by a 1x1 convolution, classify, Eq. (4).

    The two linear maps in a row, projection and the level's part of the fusion, are multiplied
    into one, which is applied before upsampling: the same numbers for a fraction of the operations
    (docs/models.md). Where BatchNorm uses its stored statistics, it is multiplied in as well.

    Names are the published ones, `linear_c.0` … `linear_c.3` for the original's `linear_c1` …
    `linear_c4`; as there, the fusion sees the coarsest level first.

    Args:
        feature_specs: the backbone's levels, finest first.
        num_classes: C.
        channels: of the projections and of the fusion.
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
        self.linear_c = nn.ModuleList(Projection(spec.channels, channels) for spec in feature_specs)
        self.linear_fuse = ConvBNReLU(len(feature_specs) * channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(channels, num_classes, kernel_size=1)
        init_classifier_(self.linear_pred)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, num_classes, h_0, w_0); see Head.forward."""
        batch_norm = self.linear_fuse.bn
        stored = not batch_norm.training  # of a teacher's head only BatchNorm is in training mode
        scale, shift = _stored_affine(batch_norm) if stored else (None, None)
        fused = sum_on_finest_grid(
            project(level, weight, bias)
            for level, (weight, bias) in zip(
                features, self._merged_projections(scale, shift), strict=True
            )
        )
        if not stored:
            fused = batch_norm(fused)
        return self.linear_pred(self.dropout(F.relu(fused, inplace=True)))

    def _merged_projections(
        self, scale: Tensor | None, shift: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For every level weight (channels, D_i) and bias of projection and fusion in one.

        Args:
            scale: (channels,), multiplied in; None is 1.
            shift: (channels,), added once, to the bias of the finest level; None is 0.
        """
        parts = column_blocks(self.linear_fuse.conv.weight, len(self.linear_c))
        linears: list[Any] = [projection.proj for projection in self.linear_c]
        for index, (linear, part) in enumerate(zip(linears, reversed(parts), strict=True)):
            if scale is not None:
                part = scale[:, None] * part
            bias = torch.mv(part, linear.bias)
            if index == 0 and shift is not None:
                bias = bias + shift
            yield part @ linear.weight, bias


def _stored_affine(batch_norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift, (channels,) each, that BatchNorm in evaluation mode amounts to."""
    scale = batch_norm.weight * torch.rsqrt(batch_norm.running_var + batch_norm.eps)
    return scale, batch_norm.bias - scale * batch_norm.running_mean
