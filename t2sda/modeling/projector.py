"""The projector g of T2S-DA: features to embeddings."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.registry import META_ARCHS

SCHEMA.declare(
    "MODEL.PROJECTOR",
    {
        "CHANNELS": Field(256, "d, channels of the embeddings", low=1),
        "KERNEL_SIZE": Field(
            3, "of both convolutions; the paper says only that they keep the resolution", low=1
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
        in_channels: D, of the encoder's coarsest features.
        channels: d.
        kernel_size: of both convolutions, odd.
    """

    def __init__(self, in_channels: int, channels: int = 256, kernel_size: int = 3) -> None:
        super().__init__(
            _conv_bn_relu(in_channels, channels, kernel_size),
            _conv_bn_relu(channels, channels, kernel_size),
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> Projector:
        """Read MODEL.PROJECTOR."""
        return cls(in_channels, cfg.MODEL.PROJECTOR.CHANNELS, cfg.MODEL.PROJECTOR.KERNEL_SIZE)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, d, h, w)."""
        return super().forward(features)


def _conv_bn_relu(in_channels: int, channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
