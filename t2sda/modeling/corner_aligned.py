"""DeepLabV2 as AdaptSegNet, ADVENT and DACS have it: logits upsampled with corners aligned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA
from t2sda.losses.numerics import at_least_float32
from t2sda.modeling.backbones.resnet_caffe import ResNetCaffe
from t2sda.modeling.segmentor import Features, SegmentationModel
from t2sda.registry import BACKBONES, MODELS


@SCHEMA.check
def aligned_corners_need_the_published_grids(cfg: CfgNode) -> str | None:
    """Only one backbone has them."""
    if not MODELS.is_a(cfg.MODEL.NAME, CornerAlignedModel):
        return None
    if BACKBONES.is_a(cfg.MODEL.BACKBONE.NAME, ResNetCaffe):
        return None
    return "MODEL.NAME: CornerAlignedModel needs MODEL.BACKBONE.NAME ResNetCaffe"


@dataclass(kw_only=True)
class RoundedUpFeatures(Features):
    """`levels` are cut to whole cells of the image; the head reads those before."""

    rounded_up: tuple[Tensor, ...]


@MODELS.register()
class CornerAlignedModel(SegmentationModel):
    """The first and the last cell of the grid lie on the first and the last pixel."""

    backbone: ResNetCaffe

    def features(self, image: Tensor, generator: torch.Generator | None = None) -> Features:
        """See `SegmentationModel.features`."""
        if not torch.compiler.is_compiling():
            self._refuse_smaller_than_a_cell(image.shape[-2:])
        normalised = (image.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        full = self.backbone.rounded_up(normalised)
        return RoundedUpFeatures(
            self.backbone.cut(full, image.shape[-2], image.shape[-1]),
            (image.shape[-2], image.shape[-1]),
            rounded_up=full,
        )

    def logits(self, features: Features) -> Tensor:
        """f: (B, C, H, W) float32 at the image's size, bilinear, corners aligned."""
        assert isinstance(features, RoundedUpFeatures)
        if features.known_logits is None:
            features.computed_logits = F.interpolate(
                at_least_float32(self.head(features.rounded_up)),
                size=features.size,
                mode="bilinear",
                align_corners=True,
            )
        assert features.computed_logits is not None
        return features.computed_logits
