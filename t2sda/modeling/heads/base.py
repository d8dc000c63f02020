"""What every segmentation head promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.registry import HEADS, MODELS
from t2sda.structures import FeatureSpec

SCHEMA.declare(
    "MODEL.HEAD",
    {
        "CHANNELS": Field(128, "Width of the head.", unit="channels", low=1),
        "DROPOUT": Field(
            0.1,
            "Probability of zeroing a whole channel before the classifier, in training.",
            low=0.0,
            high=0.9,
        ),
    },
    when=lambda cfg: any(HEADS.get(name).has_width for name in head_names(cfg)),
    when_text="a head has a width, as all but DeepLabV2Head, LinearHead and UpscalingHead",
)


def head_names(cfg: CfgNode) -> list[str]:
    """All heads that the model is built with."""
    return MODELS.get(cfg.MODEL.NAME).head_names(cfg)


class Head(nn.Module):
    """f: a pyramid of feature maps to class logits.

    Attributes:
        num_classes: C.
        has_width: whether MODEL.HEAD.CHANNELS and DROPOUT mean something to it.
        upscaling: how many times finer its logits are than the first of `levels_read`.
    """

    num_classes: int
    has_width: ClassVar[bool] = True
    upscaling: ClassVar[int] = 1

    @classmethod
    def from_config(
        cls, cfg: CfgNode, feature_specs: Sequence[FeatureSpec], num_classes: int
    ) -> Self:
        """Build it for a backbone's pyramid; of a width and dropout, unless it is overridden."""
        if not cls.has_width:
            return cls(feature_specs, num_classes)
        return cls(
            feature_specs,
            num_classes,
            channels=cfg.MODEL.HEAD.CHANNELS,
            dropout=cfg.MODEL.HEAD.DROPOUT,
        )

    @classmethod
    def levels_read(cls, num_levels: int) -> tuple[int, ...]:
        """Which levels of a pyramid of `num_levels` have an influence, finest first.

        The logits are on the grid of the first of them, or `upscaling` times finer.
        """
        return tuple(range(num_levels))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits on the finest feature grid that the head reads.

        Args:
            features: (B, D_i, h_i, w_i) of every level, finest first.

        Returns:
            (B, num_classes, h, w) on the grid of the first of `levels_read`, level 0 unless the
            head says otherwise, or `upscaling` times finer.
        """
        raise NotImplementedError
