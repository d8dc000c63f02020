"""Any convolutional feature pyramid of the timm library as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.backbones.timm_networks import (
    ceil_div,
    create_on_meta,
    create_timm_network,
    default_levels,
    feature_specs_of,
    padding_multiple,
    with_offsets,
)
from t2sda.registry import BACKBONES
from t2sda.weights import licences
from t2sda.weights.strict import LoadReport, load_strict

SCHEMA.declare(
    "MODEL.BACKBONE",
    {
        "TIMM_NAME": Field(
            "tf_efficientnet_lite0",
            "Name of the network in timm, optionally with the tag of its weights, which decides "
            "the input normalisation (resnet50.a1_in1k).",
        ),
    },
    when=lambda cfg: BACKBONES.get(cfg.MODEL.BACKBONE.NAME).is_of_timm,
    when_text="MODEL.BACKBONE.NAME is TimmCNN or TimmViT",
)
SCHEMA.declare(
    "MODEL.BACKBONE",
    {
        "OUT_INDICES": Field(
            (),
            "Levels of timm's pyramid to use, finest first; empty: those of stride 4, 8, 16, 32.",
            element=int,
            low=0,
        ),
        "OUTPUT_STRIDE": Field(
            32,
            "Stride of the coarsest level; below 32 the last stages are dilated instead, where "
            "timm can.",
            unit="pixels",
            choices=(8, 16, 32),
        ),
    },
    when=lambda cfg: BACKBONES.is_a(cfg.MODEL.BACKBONE.NAME, TimmCNN),
    when_text="MODEL.BACKBONE.NAME is TimmCNN",
)


@BACKBONES.register()
class TimmCNN(Backbone):
    """A network of timm in its `features_only` form.

    Networks that round grids up at every stage (EfficientNet, ResNet, …) see the image as it is.
    Those that cut it into patches (ConvNeXt, …) would drop the last rows and columns of a size that
    is no multiple of the stride: for these the image is padded with its mean color below and at
    the right, and the features are cut back to ceil(size / stride).

    Args:
        timm_name: the network's name in timm.
        out_indices: levels to use; empty for the strides 4, 8, 16 and 32.
        drop_path: stochastic depth of the last block.
        output_stride: of the coarsest level; below 32 the last stages are dilated instead.
    """

    is_of_timm = True

    def __init__(
        self,
        timm_name: str,
        out_indices: Sequence[int] = (),
        drop_path: float = 0.0,
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        self.timm_name = timm_name
        levels = tuple(out_indices) or default_levels(timm_name)
        # Not all of timm's networks know these; those refuse them only if they are asked for.
        dilation = {"output_stride": output_stride} if output_stride < 32 else {}
        options = {**dilation, **({"drop_path_rate": drop_path} if drop_path > 0 else {})}
        self.pads_to = padding_multiple(timm_name, levels, **dilation)
        net: Any = create_timm_network(timm_name, features_only=True, out_indices=levels, **options)
        self.net = net
        self.feature_specs = with_offsets(feature_specs_of(net), net, self.pads_to)
        self.pixel_mean = tuple(255 * value for value in net.pretrained_cfg["mean"])
        self.pixel_std = tuple(255 * value for value in net.pretrained_cfg["std"])

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TimmCNN:
        """Build the network and load MODEL.BACKBONE.WEIGHTS into it."""
        backbone = cls(
            timm_name=cfg.MODEL.BACKBONE.TIMM_NAME,
            out_indices=cfg.MODEL.BACKBONE.OUT_INDICES,
            drop_path=cfg.MODEL.BACKBONE.DROP_PATH,
            output_stride=cfg.MODEL.BACKBONE.OUTPUT_STRIDE,
        )
        if cfg.MODEL.BACKBONE.WEIGHTS:
            backbone.load_from(cfg.MODEL.BACKBONE.WEIGHTS)
        return backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of every level; shapes as in Backbone.forward."""
        if self.pads_to == 1:
            return tuple(self.net(image))
        height, width = image.shape[-2:]
        # Not `-height % n`: TensorRT cannot bound the remainder of a negative number in a graph.
        below = ceil_div(height, self.pads_to) * self.pads_to - height
        right = ceil_div(width, self.pads_to) * self.pads_to - width
        padded = F.pad(image, (0, right, 0, below))
        return tuple(
            features[..., : ceil_div(height, spec.stride), : ceil_div(width, spec.stride)]
            for features, spec in zip(self.net(padded), self.feature_specs, strict=True)
        )

    def published_names(self) -> dict[str, str | None]:
        """Of the whole classifier; see Backbone.published_names."""
        own = self.net.state_dict().keys()
        names = {
            name: _feature_name(name, own) for name in create_on_meta(self.timm_name).state_dict()
        }
        return {
            f"net.{theirs}": f"net.{ours}" if ours in own else None
            for theirs, ours in names.items()
        }

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> LoadReport:
        """Load the state dict of timm's whole classifier, or of its `features_only` form.

        What the classifier has and this network lacks may be left over; nothing else may.
        """
        own = self.net.state_dict().keys()
        state = {_feature_name(name, own): tensor for name, tensor in state.items()}
        classifier = create_on_meta(self.timm_name)
        droppable = {_feature_name(name, own) for name in classifier.state_dict()}
        report = load_strict(self.net, state, source, droppable)
        licences.note_of_timm(self.timm_name)
        return report


def _feature_name(name: str, own: Any) -> str:
    """The name a classifier's tensor has in `features_only` form.

    timm keeps it, joins its first two parts (`stages.0.x` → `stages_0.x`), or puts `model.` before.
    """
    for candidate in (name, name.replace(".", "_", 1), f"model.{name}"):
        if candidate in own:
            return candidate
    return name
