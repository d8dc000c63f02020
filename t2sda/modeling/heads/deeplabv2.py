"""The head of DeepLabV2 (Chen et al., TPAMI 2018): a sum of dilated convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.modeling.heads.base import Head, head_names
from t2sda.modeling.heads.layers import init_classifier_
from t2sda.registry import HEADS
from t2sda.structures import FeatureSpec

SCHEMA.declare(
    "MODEL.HEAD",
    {
        "DILATIONS": Field(
            (6, 12),
            "Dilation of every 3x3 convolution; [6, 12] is what the baseline's code uses, "
            "[6, 12, 18, 24] what the paper it cites has.",
            low=1,
        )
    },
    when=lambda cfg: any(HEADS.is_a(name, DeepLabV2Head) for name in head_names(cfg)),
    when_text="a head is DeepLabV2Head",
)


@HEADS.register()
class DeepLabV2Head(Head):
    """Logits of the coarsest level: 3x3 convolutions of different dilation, summed.

    No BatchNorm and no dropout. The baseline's `dlv2red` has the dilations 6 and 12 alone, like
    the code of AdaptSegNet, whose loop returns early (docs/fidelity.md, A7).

    Args:
        feature_specs: the backbone's levels; only the last is read.
        num_classes: C.
        dilations: one convolution for each.
    """

    has_width = False

    def __init__(
        self,
        feature_specs: Sequence[FeatureSpec],
        num_classes: int,
        dilations: Sequence[int] = (6, 12),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = feature_specs[-1].channels
        self.aspp_modules = nn.ModuleList(
            DilatedConv(channels, num_classes, dilation) for dilation in dilations
        )

    @classmethod
    def from_config(
        cls, cfg: CfgNode, feature_specs: Sequence[FeatureSpec], num_classes: int
    ) -> DeepLabV2Head:
        """Build it for a backbone's pyramid from a configuration."""
        return cls(feature_specs, num_classes, dilations=cfg.MODEL.HEAD.DILATIONS)

    @classmethod
    def levels_read(cls, num_levels: int) -> tuple[int, ...]:
        """The coarsest alone."""
        return (num_levels - 1,)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, num_classes, h_-1, w_-1); see Head.forward."""
        first, *others = self.aspp_modules
        logits = first(features[-1])
        for dilated in others:
            logits = logits + dilated(features[-1])
        return logits


class DilatedConv(nn.Module):
    """A dilated 3x3 convolution with bias, under its published name."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size=3, padding=dilation, dilation=dilation
        )
        init_classifier_(self.conv)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) → (B, out_channels, h, w)."""
        return self.conv(features)
