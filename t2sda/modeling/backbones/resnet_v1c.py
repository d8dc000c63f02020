"""ResNet-v1c at output stride 8: the encoder of DeepLabV2 in the domain-adaptation literature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.modeling.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from t2sda.modeling.backbones.timm_networks import create_timm_network
from t2sda.registry import BACKBONES
from t2sda.structures import FeatureSpec
from t2sda.weights.resnet_v1c import timm_name
from t2sda.weights.strict import LoadReport, load_strict

STRIDES = (4, 8, 8, 8)
_CLASSIFIER = ("fc.weight", "fc.bias")

SCHEMA.declare(
    "MODEL.BACKBONE",
    {"DEPTH": Field(101, "Layers of the ResNet.", choices=(18, 50, 101))},
    when=lambda cfg: BACKBONES.is_a(cfg.MODEL.BACKBONE.NAME, ResNetV1c),
    when_text="MODEL.BACKBONE.NAME is ResNetV1c or ResNetCaffe",
)


@BACKBONES.register()
class ResNetV1c(Backbone):
    """ResNet with a stem of three 3x3 convolutions, and dilation instead of the last two strides.

    The network is timm's, with the stem 32-32-64 and output stride 8: its stages have strides
    1, 2, 1, 1 and dilations 1, 1, 2, 4, the first block of a stage keeps the dilation of the stage
    before, and the stride sits in the 3x3 convolution. That is ResNetV1c of mmsegmentation with
    `contract_dilation=True`. Three things differ: names of the stem's tensors (translated when
    weights are loaded); stochastic depth, which mmsegmentation does not have and which is off
    unless DROP_PATH asks for it; and the basic blocks of depth 18, where timm dilates the second
    convolution too and mmsegmentation the first alone (tensors are the same, numbers are not).

    Args:
        depth: 18, 50 or 101.
        drop_path: stochastic depth of the last block.
    """

    pixel_mean = IMAGENET_MEAN
    pixel_std = IMAGENET_STD
    stem: ClassVar[Mapping[str, Any]] = {"stem_type": "deep", "stem_width": 32}

    def __init__(self, depth: int = 101, drop_path: float = 0.0) -> None:
        super().__init__()
        net: Any = create_timm_network(
            f"resnet{depth}",
            features_only=True,
            out_indices=(1, 2, 3, 4),
            output_stride=8,
            drop_path_rate=drop_path,
            **self.stem,
        )
        self.net = net
        self.feature_specs = tuple(map(FeatureSpec, net.feature_info.channels(), STRIDES))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ResNetV1c:
        """Build the network and load MODEL.BACKBONE.WEIGHTS into it."""
        backbone = cls(depth=cfg.MODEL.BACKBONE.DEPTH, drop_path=cfg.MODEL.BACKBONE.DROP_PATH)
        if cfg.MODEL.BACKBONE.WEIGHTS:
            backbone.load_from(cfg.MODEL.BACKBONE.WEIGHTS)
        return backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of strides 4, 8, 8 and 8; shapes as in Backbone.forward."""
        return tuple(self.net(image))

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> LoadReport:
        """Load the state dict of timm's (`resnet101c`) or mmsegmentation's ResNet-v1c.

        The ImageNet classifier may be left over; nothing else may.
        """
        state = {timm_name(name): tensor for name, tensor in state.items()}
        return load_strict(self.net, state, source, _CLASSIFIER)
