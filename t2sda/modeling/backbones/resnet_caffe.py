"""ResNet at output stride 8 as Caffe had it: the encoder of AdaptSegNet, ADVENT and DACS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from t2sda.modeling.backbones.resnet_v1c import STRIDES, ResNetV1c
from t2sda.modeling.backbones.timm_networks import ceil_div
from t2sda.registry import BACKBONES

DILATIONS = (1, 1, 2, 4)
"""Of every block of a stage, the first included."""


@BACKBONES.register()
class ResNetCaffe(ResNetV1c):
    """ResNet with a 7x7 stem, strides in the first convolution of a block, and images less a mean.

    The first block of a stage has the dilation of the stage. The pooling rounds up: `rounded_up`
    gives the published grids, one cell longer where half a side is even; `forward` cuts them to the
    contract of Backbone.

    Args:
        depth: 18, 50 or 101.
        drop_path: stochastic depth of the last block; the published network has none.
    """

    pixel_mean = (122.67891434, 116.66876762, 104.00698793)
    pixel_std = (1.0, 1.0, 1.0)
    stem: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, depth: int = 101, drop_path: float = 0.0) -> None:
        super().__init__(depth, drop_path)
        self.net.maxpool.ceil_mode = True
        for index, dilation in enumerate(DILATIONS):
            _as_in_caffe_(getattr(self.net, f"layer{index + 1}"), dilation)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of strides 4, 8, 8 and 8; shapes as in Backbone.forward."""
        return self.cut(self.rounded_up(image), image.shape[-2], image.shape[-1])

    def rounded_up(self, image: Tensor) -> tuple[Tensor, ...]:
        """The same on the grids of the published network."""
        return super().forward(image)

    def cut(self, levels: Sequence[Tensor], height: int, width: int) -> tuple[Tensor, ...]:
        """Levels of `rounded_up` to whole cells of an image of this size."""
        return tuple(
            level[..., : ceil_div(height, stride), : ceil_div(width, stride)]
            for level, stride in zip(levels, STRIDES, strict=True)
        )


def _as_in_caffe_(stage: nn.Sequential, dilation: int) -> None:
    """Strides move from the 3x3 to the 1x1 convolutions; every block has the stage's dilation."""
    for block in stage:
        layers: Any = block
        if hasattr(layers, "conv3"):
            layers.conv1.stride, layers.conv2.stride = layers.conv2.stride, layers.conv1.stride
        layers.conv2.dilation = layers.conv2.padding = (dilation, dilation)
