"""The projector g of T2S-DA: features to embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.modeling.heads.layers import init_convolution_
from t2sda.registry import META_ARCHS
from t2sda.structures import FeatureSpec

SCHEMA.declare(
    "MODEL.PROJECTOR",
    {
        "CHANNELS": Field(256, "d, channels of the embeddings", low=1),
        "KERNEL_SIZE": Field(
            3, "of both convolutions; the paper says only that they keep the resolution", low=1
        ),
        "LEVEL": Field(
            -1,
            "level of the backbone's pyramid that it reads: 0 is the finest, -1 the coarsest",
            low=-8,
            high=7,
        ),
    },
    when=lambda cfg: META_ARCHS.get(cfg.META_ARCH.NAME).has_projector,
    when_text="META_ARCH.NAME has a projector",
)


@SCHEMA.check
def kernel_size_is_odd(cfg: CfgNode) -> str | None:
    """An even kernel cannot keep the resolution."""
    size = cfg.MODEL.PROJECTOR.KERNEL_SIZE
    return None if size % 2 else f"MODEL.PROJECTOR.KERNEL_SIZE: {size} is even; use an odd one"


class Projector(nn.Sequential):
    """Two Conv-BN-ReLU blocks to `channels`, resolution kept (section 4 of the paper).

    It ends in ReLU, so cosines between embeddings are never negative (docs/fidelity.md, B16).

    Args:
        in_channels: D, of the encoder's features.
        channels: d.
        kernel_size: of both convolutions, odd.
    """

    def __init__(self, in_channels: int, channels: int = 256, kernel_size: int = 3) -> None:
        super().__init__(
            _conv_bn_relu(in_channels, channels, kernel_size),
            _conv_bn_relu(channels, channels, kernel_size),
        )
        self.channels = channels

    @classmethod
    def from_config(cls, cfg: CfgNode, feature_specs: Sequence[FeatureSpec]) -> Projector:
        """Read MODEL.PROJECTOR.

        Raises:
            UserError: if the backbone has no such level.
        """
        level, levels = cfg.MODEL.PROJECTOR.LEVEL, len(feature_specs)
        if not -levels <= level < levels:
            raise UserError(
                f"MODEL.PROJECTOR.LEVEL: {level}, but {cfg.MODEL.BACKBONE.NAME} has {levels} "
                f"levels; use 0 to {levels - 1} from the finest, or -1 for the coarsest"
            )
        channels = feature_specs[level].channels
        return cls(channels, cfg.MODEL.PROJECTOR.CHANNELS, cfg.MODEL.PROJECTOR.KERNEL_SIZE)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, d, h, w)."""
        return super().forward(features)


def _conv_bn_relu(in_channels: int, channels: int, kernel_size: int) -> nn.Sequential:
    convolution = nn.Conv2d(
        in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False
    )
    init_convolution_(convolution)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
