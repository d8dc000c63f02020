"""What several heads are made of; names of parameters are mmsegmentation's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    """Convolution without bias that keeps the resolution, BatchNorm, ReLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: odd.
        dilation: of the kernel.
        groups: of the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        init_convolution_(self.conv)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) → (B, out_channels, h, w)."""
        return F.relu(self.bn(self.conv(features)), inplace=True)


class Projection(nn.Module):
    """A linear layer on the channels of a feature map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) → (B, out_channels, h, w)."""
        return project(features, self.proj.weight, self.proj.bias)


def project(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution with `weight` (D', D): (B, D, h, w) → (B, D', h, w)."""
    return F.conv2d(features, weight[:, :, None, None], bias)


def column_blocks(weight: Tensor, count: int) -> list[Tensor]:
    """A 1x1 convolution over `count` concatenated maps as one for each, (D', D / count), in order.

    Slices, not `chunk`: what is sliced from a constant is a constant to every exporter.
    """
    matrix = weight.flatten(1)
    width = matrix.shape[1] // count
    return [matrix[:, index * width : (index + 1) * width] for index in range(count)]


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners not aligned: (B, D, h, w) → (B, D, *size)."""
    if tuple(features.shape[-2:]) == tuple(size):
        return features
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


def sum_on_finest_grid(levels: Iterable[Tensor]) -> Tensor:
    """Sum of maps with equal channels, all upsampled to the grid of the first.

    This is the cheap order of "upsample, concatenate, 1x1 convolution": bilinear upsampling is
    linear on every channel and its weights sum to 1, so it commutes with a 1x1 convolution and its
    bias, and a convolution of a concatenation is the sum of convolutions of its parts. Every part
    is convolved on its own coarse grid, and nothing is concatenated.
    """
    finest, *coarser = levels
    size = finest.shape[-2:]
    total = finest
    for level in coarser:
        total = total + resize(level, size)
    return total


def init_convolution_(layer: nn.Conv2d) -> None:
    """Before BatchNorm and ReLU, as the baseline's framework has it (docs/fidelity.md, E5).

    Kaiming normal with the fan-out that torch counts: of a depthwise convolution all channels.
    """
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def init_classifier_(layer: nn.Conv2d) -> None:
    """Nearly equal probabilities at the start, as the heads of the literature have it."""
    assert layer.bias is not None, "a classifier without bias"
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
