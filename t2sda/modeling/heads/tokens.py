"""Heads of plain vision transformers, which read the last tokens and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA
from t2sda.modeling.heads.base import Head, head_names
from t2sda.modeling.normalization import LayerNorm2d
from t2sda.registry import BACKBONES, HEADS
from t2sda.structures import FeatureSpec


class TokenHead(Head):
    """A head of the coarsest level alone: of a plain transformer without pyramid, its tokens."""

    has_width = False

    @classmethod
    def levels_read(cls, num_levels: int) -> tuple[int, ...]:
        """The coarsest alone."""
        return (num_levels - 1,)


@SCHEMA.check
def tokens_are_read_without_a_pyramid(cfg: CfgNode) -> str | None:
    """Of a pyramid such a head would read the coarsest level: a quarter of the tokens."""
    names = [name for name in head_names(cfg) if HEADS.is_a(name, TokenHead)]
    if not names or not BACKBONES.get(cfg.MODEL.BACKBONE.NAME).has_fresh_levels(cfg):
        return None
    return (
        f"MODEL.BACKBONE.PYRAMID_CHANNELS: {cfg.MODEL.BACKBONE.PYRAMID_CHANNELS}, but {names[0]} "
        f"reads the last tokens, without a pyramid on them; set it to 0"
    )


@HEADS.register()
class LinearHead(TokenHead):
    """A 1x1 convolution: what the features say without any decoder.

    As in tue-mps/benchmark-vfm-ss (MIT), with torch's own initialisation.

    Args:
        feature_specs: the backbone's levels; only the last is read.
        num_classes: C.
    """

    def __init__(self, feature_specs: Sequence[FeatureSpec], num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classifier = nn.Conv2d(feature_specs[-1].channels, num_classes, kernel_size=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, num_classes, h_-1, w_-1); see Head.forward."""
        return self.classifier(features[-1])


@HEADS.register()
class UpscalingHead(TokenHead):
    """The tokens' grid made four times finer by transposed convolutions, then classified.

    As VFM-UDA has it (tue-mps/vfm-uda, MIT): D to D / 2 and D / 4 channels, no bias anywhere.

    Args:
        feature_specs: the backbone's levels; only the last, of D channels, is read.
        num_classes: C.
    """

    upscaling = 4

    def __init__(self, feature_specs: Sequence[FeatureSpec], num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = feature_specs[-1].channels
        half, quarter = channels // 2, channels // 4
        self.upscale = nn.Sequential(
            nn.ConvTranspose2d(channels, half, kernel_size=2, stride=2, bias=False),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, kernel_size=2, stride=2, bias=False),
            LayerNorm2d(quarter),
            nn.Conv2d(quarter, quarter, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(quarter),
        )
        self.classifier = nn.Conv2d(quarter, num_classes, kernel_size=1, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, num_classes, 4 h_-1, 4 w_-1); see Head.forward."""
        return self.classifier(self.upscale(features[-1]))
