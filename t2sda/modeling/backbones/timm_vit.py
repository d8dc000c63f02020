"""Any plain vision transformer of the timm library (DINOv2, DINOv3, …) as a backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.backbones.timm_import import import_timm
from t2sda.modeling.backbones.timm_networks import ceil_div, create_on_meta, create_timm_network
from t2sda.modeling.backbones.timm_tokens import can_hide_tokens, tokens_with_hidden
from t2sda.modeling.normalization import LayerNorm2d
from t2sda.registry import BACKBONES
from t2sda.structures import FeatureSpec, HiddenTokens
from t2sda.weights import licences
from t2sda.weights.strict import LoadReport, load_strict

SCHEMA.declare(
    "MODEL.BACKBONE",
    {
        "PYRAMID_CHANNELS": Field(
            256,
            "Channels of every level of the simple feature pyramid; 0: there is none, the last "
            "tokens are the only level, for heads and projectors that read nothing else.",
            low=0,
        ),
        "TOKEN_STRIDE": Field(
            0.0,
            "Pixels of the image from one token to the next; the network sees it resampled so that "
            "a patch covers them. 12.8 makes 80 x 80 tokens of 1024 x 1024 pixels; 0: the smallest "
            "power of two that is not below the patch, 16 for patches of 14.",
            unit="pixels",
            low=0.0,
        ),
    },
    when=lambda cfg: BACKBONES.is_a(cfg.MODEL.BACKBONE.NAME, TimmViT),
    when_text="MODEL.BACKBONE.NAME is TimmViT",
)


@SCHEMA.check
def without_a_pyramid_there_is_one_level(cfg: CfgNode) -> str | None:
    """An auxiliary head reads a level that is there."""
    aux = cfg.MODEL.AUX_HEAD
    is_single = BACKBONES.is_a(cfg.MODEL.BACKBONE.NAME, TimmViT) and not (
        cfg.MODEL.BACKBONE.PYRAMID_CHANNELS
    )
    if not is_single or not aux.NAME or aux.LEVEL == 0:
        return None
    return (
        f"MODEL.AUX_HEAD.LEVEL: {aux.LEVEL}, but a plain transformer without a pyramid "
        f"(MODEL.BACKBONE.PYRAMID_CHANNELS 0) has the level 0 alone; set it to 0"
    )


@BACKBONES.register()
class TimmViT(Backbone):
    """A plain transformer of timm, by default under a simple pyramid (Li et al., ECCV 2022).

    The last block's tokens make four levels: transposed convolutions towards the finer grids,
    pooling towards the coarser one. Absolute position embeddings are resampled to the grid of the
    image, rotary ones are computed for it.

    Images may have any size: they are padded with their mean color, below and at the right, to
    whole patches, and the features are cut back. Patches whose side is no power of two (14 of
    DINOv2) see the image resampled, by 14 / 16, so that a patch covers 16 pixels and the levels
    have the strides 4, 8, 16 and 32.

    Args:
        timm_name: the network's name in timm.
        pyramid_channels: of every level; 0: the last tokens, normed, are the only one.
        drop_path: stochastic depth of the last block.
        token_stride: pixels of the image from one token to the next; 0: the power of two above.
    """

    is_of_timm = True
    has_tokens = True
    may_have_batch_norm = False

    def __init__(
        self,
        timm_name: str,
        pyramid_channels: int = 256,
        drop_path: float = 0.0,
        token_stride: float = 0.0,
    ) -> None:
        super().__init__()
        self.timm_name = timm_name
        _refuse_other_than_vit(timm_name)
        net: Any = create_timm_network(
            timm_name, num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path
        )
        net.prune_intermediate_layers()  # keeps all blocks, drops what only a classifier reads
        self.net = net
        self.patch = net.patch_embed.patch_size[0]
        self.stride = _exact(token_stride) or 2 ** math.ceil(math.log2(self.patch))
        tokens = _patches(net.embed_dim, Fraction(self.stride))
        self.tokens = tokens if can_hide_tokens(net) else None
        self.pyramid: SimpleFeaturePyramid | None = None
        self.feature_specs = (tokens,)
        if pyramid_channels:
            self.pyramid = SimpleFeaturePyramid(net.embed_dim, pyramid_channels)
            self.feature_specs = tuple(
                _patches(pyramid_channels, self.stride * Fraction(factor))
                for factor in (1 / 4, 1 / 2, 1, 2)
            )
        self.pixel_mean = tuple(255 * value for value in net.pretrained_cfg["mean"])
        self.pixel_std = tuple(255 * value for value in net.pretrained_cfg["std"])

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TimmViT:
        """Build the network and load MODEL.BACKBONE.WEIGHTS into the transformer."""
        backbone = cls(
            timm_name=cfg.MODEL.BACKBONE.TIMM_NAME,
            pyramid_channels=cfg.MODEL.BACKBONE.PYRAMID_CHANNELS,
            drop_path=cfg.MODEL.BACKBONE.DROP_PATH,
            token_stride=cfg.MODEL.BACKBONE.TOKEN_STRIDE,
        )
        if cfg.MODEL.BACKBONE.WEIGHTS:
            backbone.load_from(cfg.MODEL.BACKBONE.WEIGHTS)
        return backbone

    def fresh_modules(self) -> tuple[nn.Module, ...]:
        """The pyramid: files of weights hold the transformer alone."""
        return () if self.pyramid is None else (self.pyramid,)

    @classmethod
    def has_fresh_levels(cls, cfg: CfgNode) -> bool:
        """Those of the pyramid are; the last tokens are not."""
        return cfg.MODEL.BACKBONE.PYRAMID_CHANNELS > 0

    def blocks_to_adapt(self) -> tuple[nn.Module, ...]:
        """Those of the transformer; from now on EVA's attention calls its layers as well."""
        for block in self.net.blocks:
            attention: Any = getattr(block, "attn", None)
            if getattr(attention, "q_bias", None) is not None:
                attention.qkv_bias_separate = True  # else it reads the weight of qkv
        return tuple(self.net.blocks)

    def forward(self, image: Tensor, hidden: HiddenTokens | None = None) -> tuple[Tensor, ...]:
        """Features of every level; shapes as in Backbone.forward.

        Args:
            image: (B, 3, H, W) float, normalised.
            hidden: tokens that are replaced after the patches were embedded.
        """
        height, width = image.shape[-2:]
        image = self._in_whole_patches(image)
        if hidden is not None:
            features = tokens_with_hidden(self.net, image, hidden)
        else:
            (features,) = self.net.forward_intermediates(
                image, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
            )
        levels = (features,) if self.pyramid is None else self.pyramid(features)
        return tuple(
            level[..., : ceil_div(height, spec.stride), : ceil_div(width, spec.stride)]
            for level, spec in zip(levels, self.feature_specs, strict=True)
        )

    def _in_whole_patches(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), padded and resampled -> (B, 3, h * patch, w * patch) of h x w tokens."""
        height, width = image.shape[-2:]
        rows, columns = ceil_div(height, self.stride), ceil_div(width, self.stride)
        # As many pixels as whole patches cover; a fraction of one at most is beyond them.
        covered = [ceil_div(cells, 1 / Fraction(self.stride)) for cells in (rows, columns)]
        image = F.pad(image, (0, covered[1] - width, 0, covered[0] - height))
        if self.patch == self.stride:
            return image
        size = [cells * self.patch for cells in (rows, columns)]
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False)

    def published_names(self) -> dict[str, str | None]:
        """Of the whole classifier; see Backbone.published_names."""
        own = self.net.state_dict().keys()
        return {
            f"net.{name}": f"net.{name}" if name in own else None
            for name in create_on_meta(self.timm_name).state_dict()
        }

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> LoadReport:
        """Load timm's state dict of the transformer; its classifier may be left over."""
        droppable = create_on_meta(self.timm_name).state_dict().keys()
        report = load_strict(self.net, state, source, droppable)
        licences.note_of_timm(self.timm_name)
        return report


class SimpleFeaturePyramid(nn.Module):
    """One feature map to four, of 4, 2, 1 and 1/2 times its resolution.

    Args:
        in_channels: D, of the transformer.
        channels: of every level.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half, quarter = in_channels // 2, in_channels // 4
        self.levels = nn.ModuleList(
            [
                nn.Sequential(
                    _double(in_channels, half),
                    LayerNorm2d(half),
                    nn.GELU(),
                    _double(half, quarter),
                    *_to_level(quarter, channels),
                ),
                nn.Sequential(_double(in_channels, half), *_to_level(half, channels)),
                nn.Sequential(*_to_level(in_channels, channels)),
                nn.Sequential(
                    nn.MaxPool2d(kernel_size=2, ceil_mode=True), *_to_level(in_channels, channels)
                ),
            ]
        )

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(B, D, h, w) → (B, channels, …) of 4h x 4w, 2h x 2w, h x w, ceil(h / 2) x ceil(w / 2)."""
        return tuple(level(features) for level in self.levels)


def _exact(stride: float) -> int | Fraction:
    """What was meant by a decimal, such as 64 / 5 by 12.8."""
    return _whole(Fraction(stride).limit_denominator(1000))


def _whole(stride: Fraction) -> int | Fraction:
    """Whole numbers as integers."""
    return stride.numerator if stride.denominator == 1 else stride


def _patches(channels: int, stride: Fraction) -> FeatureSpec:
    """A level whose cells are squares without overlap, side by side from the first pixel on."""
    return FeatureSpec(channels, _whole(stride), offset=float(stride - 1) / 2)


def _double(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


def _to_level(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, channels, kernel_size=1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(channels),
    )


def _refuse_other_than_vit(timm_name: str) -> None:
    net = create_on_meta(timm_name)
    # A hybrid has convolutions in the place of PatchEmbed, with strides it does not state.
    cuts_patches = isinstance(getattr(net, "patch_embed", None), import_timm().layers.PatchEmbed)
    if not (cuts_patches and hasattr(net, "blocks") and hasattr(net, "forward_intermediates")):
        raise UserError(
            f"MODEL.BACKBONE.TIMM_NAME: '{timm_name}' is no plain vision transformer; take one "
            f"such as vit_small_patch14_dinov2.lvd142m, or MODEL.BACKBONE.NAME TimmCNN"
        )
