"""What every backbone promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.modeling.backbones.folding import folded_state
from t2sda.structures import FeatureSpec
from t2sda.weights.sources import OWN_BACKBONE, load_weights
from t2sda.weights.strict import LoadReport, load_strict

SCHEMA.declare(
    "MODEL.BACKBONE",
    {
        "WEIGHTS": Field(
            "",
            "Pretrained weights: the path of a .pth, .pt, .bin or .safetensors state dict, "
            "pip://PACKAGE for the one in an installed package, hf://OWNER/NAME for the one in a "
            "repository of the Hugging Face hub, timm://NAME for timm's; a checkpoint_*.pth of "
            "t2sda gives its student's backbone; empty: random. Every tensor must find its place.",
        ),
        "DROP_PATH": Field(
            0.0,
            "Stochastic depth: probability of skipping the last residual block; it grows linearly "
            "from 0 at the first.",
            low=0.0,
            high=0.9,
        ),
    },
)


# Of R, G, B in [0, 255].
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class Backbone(nn.Module):
    """h: an image to a pyramid of feature maps.

    Attributes:
        feature_specs: one per level, finest first; a dilated network may repeat its last stride.
        pixel_mean: of R, G, B in [0, 255], what the pretrained weights expect.
        pixel_std: likewise.
        is_of_timm: whether MODEL.BACKBONE.TIMM_NAME chooses the network.
        has_tokens: whether passes may hide tokens: `forward` then takes `HiddenTokens` as well.
        tokens: their grid; None: this network has none that can be hidden.
        may_have_batch_norm: whether some network of the class has BatchNorm to freeze (MODEL.NORM).
    """

    feature_specs: tuple[FeatureSpec, ...]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    is_of_timm: ClassVar[bool] = False
    has_tokens: ClassVar[bool] = False
    tokens: FeatureSpec | None = None
    may_have_batch_norm: ClassVar[bool] = True

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Backbone:
        """Build it, pretrained weights loaded, from a configuration."""
        raise NotImplementedError

    def load_from(self, source: str) -> None:
        """Load what MODEL.BACKBONE.WEIGHTS names, strictly.

        Raises:
            UserError: if a tensor finds no place, or a place no tensor.
        """
        state = load_weights(source)
        own = {
            name.removeprefix(OWN_BACKBONE): tensor
            for name, tensor in state.items()
            if name.startswith(OWN_BACKBONE)
        }
        if own:
            load_strict(self, folded_state(own), source)
        else:
            self.load_pretrained(state, source)

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> LoadReport:
        """Load a state dict as others publish it, strictly.

        Args:
            state: tensors by their names.
            source: where it is from, for messages.
        """
        return load_strict(self, state, source)

    def fresh_modules(self) -> tuple[nn.Module, ...]:
        """Modules that no pretrained weights fill; they learn at the head's rate."""
        return ()

    def blocks_to_adapt(self) -> tuple[nn.Module, ...]:
        """Blocks whose `nn.Linear` may get adapters, in the order in which the image meets them.

        Each such layer is called: who reads its weight would pass the adapter by.
        """
        return ()

    @classmethod
    def has_fresh_levels(cls, cfg: CfgNode) -> bool:
        """Whether its levels are made by `fresh_modules`, so that none of them is pretrained."""
        return False

    def published_names(self) -> dict[str, str | None]:
        """Names that files of weights have for its tensors, where they are others -> its own.

        None for what is in such files and not in this network, such as a classifier.
        """
        return {}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of every level.

        Args:
            image: (B, 3, H, W) float, normalised. Any H and W of at least the coarsest stride.

        Returns:
            For every spec (B, spec.channels, ceil(H / spec.stride), ceil(W / spec.stride)).
        """
        raise NotImplementedError
