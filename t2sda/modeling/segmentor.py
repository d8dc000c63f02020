"""The segmentation network f(h(x)): what is trained, evaluated, exported and shipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.losses.numerics import at_least_float32
from t2sda.losses.segmentation import cross_entropy
from t2sda.modeling.backbones.adapters import limit_training_
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.heads.base import Head
from t2sda.modeling.normalization import set_norm
from t2sda.registry import BACKBONES, HEADS, MODELS
from t2sda.structures import FeatureSpec, HiddenTokens

SCHEMA.declare("MODEL.BACKBONE", {"NAME": Field("TimmCNN", "Registered name of the backbone h.")})
SCHEMA.declare("MODEL.HEAD", {"NAME": Field("LightHead", "Registered name of the head f.")})
SCHEMA.declare(
    "MODEL",
    {
        "NAME": Field(
            "SegmentationModel", "Registered name of what joins backbone and head; plain by default"
        ),
        "NORM": Field(
            "batch",
            "BatchNorm of the backbone: 'batch' is trained; 'frozen' keeps the statistics, scale "
            "and shift of MODEL.BACKBONE.WEIGHTS; 'frozen_affine' keeps scale and shift, and the "
            "statistics go on. The head has none to keep and is always trained.",
            choices=("batch", "frozen", "frozen_affine"),
        ),
    },
)
SCHEMA.declare(
    "MODEL.AUX_HEAD",
    {"NAME": Field("", "Registered name of a second head, for the loss alone; empty: none.")},
)
SCHEMA.declare(
    "MODEL.AUX_HEAD",
    {
        "LEVEL": Field(2, "Level of the backbone that it reads; 0 is the finest.", low=0),
        "WEIGHT": Field(0.1, "Weight of its cross entropy.", low=0.0, exclusive_low=True),
    },
    when=lambda cfg: bool(cfg.MODEL.AUX_HEAD.NAME),
    when_text="MODEL.AUX_HEAD.NAME is set",
)


def _norm_has_no_effect(cfg: CfgNode) -> str:
    return (
        f"MODEL.NORM: '{cfg.MODEL.NORM}' has no effect, this {cfg.MODEL.BACKBONE.NAME} has no "
        f"BatchNorm; remove it"
    )


@SCHEMA.check
def there_is_a_batch_norm_to_freeze(cfg: CfgNode) -> str | None:
    """As far as the backbone's class decides it; of timm's CNNs the built network does."""
    if cfg.MODEL.NORM == "batch" or BACKBONES.get(cfg.MODEL.BACKBONE.NAME).may_have_batch_norm:
        return None
    return _norm_has_no_effect(cfg)


@dataclass
class Features:
    """What the plain model made of an image; passes read `deepest` and hand on the rest.

    A model of another kind has a record of its own, with `deepest`.
    """

    levels: tuple[Tensor, ...]
    """(B, D_i, h_i, w_i) of every level of `feature_specs`, finest first."""
    size: tuple[int, int]
    """(H, W) of the image."""
    computed_logits: Tensor | None = None
    """The logits, once somebody asked for them."""

    @property
    def known_logits(self) -> Tensor | None:
        """`computed_logits`; None where a gradient is wanted that they do not carry."""
        known = self.computed_logits
        if known is None or known.requires_grad or not torch.is_grad_enabled():
            return known
        return None

    @property
    def deepest(self) -> Tensor:
        """(B, D, h, w), h(x) of the coarsest level."""
        return self.levels[-1]


class Sliding(NamedTuple):
    """How a model goes over images that are larger than what it takes at once."""

    window: tuple[int, int]
    """(height, width)."""
    step: tuple[int, int]
    """(height, width) from one window to the next; logits are averaged where they overlap."""


class AuxiliaryHead(nn.Module):
    """A second head on one level, which takes part in the loss alone.

    Args:
        head: built for that level alone.
        level: counted from the finest, 0.
        weight: of its cross entropy.
    """

    def __init__(self, head: Head, level: int, weight: float) -> None:
        super().__init__()
        self.head = head
        self.level = level
        self.weight = weight

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels of the backbone -> (B, C, h, w) logits."""
        return self.head((levels[self.level],))


@MODELS.register()
class SegmentationModel(nn.Module):
    """Backbone and head behind the normalisation they expect.

    The input is what cameras and files give, RGB in [0, 255]. Mean and standard deviation are
    saved buffers: weights trained with one normalisation are wrong with another, so they travel
    in the checkpoint with them instead of being looked up in a library again.

    A model of another kind (several scales, windows) derives from it and is chosen by MODEL.NAME.
    Passes call `features`, `logits` and `loss`, nothing else.

    Args:
        backbone: h.
        head: f.
        aux_head: for the loss alone; not exported.

    Attributes:
        trains_aux_head: whether `loss` has the auxiliary head's part; a class with a `loss` of its
            own says so.
        hides_tokens: whether there is `features_with_hidden`; a class with `features` of its own
            says so.
        sliding: how `forward` goes over large images; None: it takes any image whole.
        slides_itself: whether it always has `sliding`.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    sliding: Sliding | None = None
    slides_itself: ClassVar[bool] = False
    trains_aux_head: ClassVar[bool] = True
    hides_tokens: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "loss" in vars(cls) and "trains_aux_head" not in vars(cls):
            cls.trains_aux_head = False
        if "features" in vars(cls) and "hides_tokens" not in vars(cls):
            cls.hides_tokens = False

    def __init__(
        self, backbone: Backbone, head: Head, aux_head: AuxiliaryHead | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.aux_head = aux_head
        self.num_classes = head.num_classes
        self.register_buffer("pixel_mean", torch.tensor(backbone.pixel_mean).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(backbone.pixel_std).view(3, 1, 1))

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> SegmentationModel:
        """Build backbone and heads, pretrained weights loaded.

        Raises:
            UserError: if MODEL.NORM is to freeze what the backbone does not have, or to train what
                MODEL.BACKBONE.TRAIN freezes.
        """
        backbone = BACKBONES.get(cfg.MODEL.BACKBONE.NAME).from_config(cfg)
        has_norm = any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
        if cfg.MODEL.NORM != "batch" and not has_norm:
            raise UserError(_norm_has_no_effect(cfg))
        if cfg.MODEL.NORM == "batch" and has_norm and cfg.MODEL.BACKBONE.TRAIN != "all":
            raise UserError(
                f"MODEL.NORM: 'batch' trains BatchNorm, but MODEL.BACKBONE.TRAIN is "
                f"'{cfg.MODEL.BACKBONE.TRAIN}'; set MODEL.NORM to 'frozen' or 'frozen_affine'"
            )
        limit_training_(backbone, cfg)
        set_norm(backbone, cfg.MODEL.NORM)
        head = HEADS.get(cfg.MODEL.HEAD.NAME).from_config(cfg, backbone.feature_specs, num_classes)
        return cls(backbone, head, _auxiliary_head(cfg, backbone.feature_specs, num_classes))

    @classmethod
    def head_names(cls, cfg: CfgNode) -> list[str]:
        """Registered names of the heads that are built: the head, the auxiliary one if any."""
        return [name for name in (cfg.MODEL.HEAD.NAME, cfg.MODEL.AUX_HEAD.NAME) if name]

    @classmethod
    def class_tensors(cls, cfg: CfgNode, num_classes: int) -> set[str]:
        """Names of the tensors that depend on the classes: their shape follows from the number.

        Found by building the network a second time, for one class more.
        """
        plain = to_be_loaded(cfg)
        with torch.random.fork_rng(devices=[]):
            few, more = (
                cls.from_config(plain, number).state_dict()
                for number in (num_classes, num_classes + 1)
            )
        return {name for name in few if name not in more or more[name].shape != few[name].shape}

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The backbone first, then what reads its features on the way to the logits."""
        return (self.backbone, self.head)

    @property
    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """The backbone's levels, finest first; `Features.deepest` is on the last."""
        return self.backbone.feature_specs

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the size of the image.

        Args:
            image: (B, 3, H, W) RGB in [0, 255], uint8 or float.

        Returns:
            (B, C, H, W) float32.
        """
        return self.logits(self.features(image))

    def features(self, image: Tensor, generator: torch.Generator | None = None) -> Features:
        """h(x) of the whole image.

        Args:
            image: (B, 3, H, W) RGB in [0, 255], uint8 or float.
            generator: on the CPU, given by student passes alone: a model of another kind may draw
                crops from it and keep the box in its record. Teacher and evaluation give none.

        Raises:
            UserError: if the image is smaller than a cell of the coarsest level.
        """
        if not torch.compiler.is_compiling():  # a compiled graph has its range of sizes already
            self._refuse_smaller_than_a_cell(image.shape[-2:])
        return Features(self._levels(self.backbone, image), (image.shape[-2], image.shape[-1]))

    def features_with_hidden(self, image: Tensor, hidden: HiddenTokens) -> Features:
        """h(x) where the backbone does not see some of its tokens; for student passes.

        Args:
            image: (B, 3, H, W) RGB in [0, 255], uint8 or float.
            hidden: on the grid of `backbone.tokens`.
        """
        levels = self._levels(self.backbone, image, hidden)
        return Features(levels, (image.shape[-2], image.shape[-1]))

    def logits(self, features: Features) -> Tensor:
        """f: (B, C, H, W) float32 at the image's size, upsampled bilinearly; computed once."""
        if features.known_logits is None:
            features.computed_logits = enlarged(self.head(features.levels), features.size)
        assert features.computed_logits is not None
        return features.computed_logits

    def loss(
        self,
        features: Features,
        labels: Tensor,
        weight: Tensor | None = None,
        normalizer: Tensor | None = None,
    ) -> Tensor:
        """That of the model's output, and cross entropy of the auxiliary head's.

        Args:
            features: of the labelled images.
            labels: (B, H, W) int64 train ids or IGNORE_INDEX.
            weight: (B, H, W) of every pixel, or None for 1.
            normalizer: scalar denominator in place of B*H*W, for a mini-batch spread over ranks.
        Returns:
            Scalar.
        """
        loss = self.output_loss(features, labels, weight, normalizer)
        if self.aux_head is None:
            return loss
        _, logits = self.outputs(features)
        return loss + self.aux_head.weight * cross_entropy(logits, labels, weight, normalizer)

    def outputs(self, features: Features) -> list[Tensor]:
        """(B, C, H, W) float32 logits of every head: `logits`, then the auxiliary head's if any."""
        if self.aux_head is None:
            return [self.logits(features)]
        logits = self.logits(features)
        return [logits, enlarged(self.aux_head(features.levels), features.size)]

    def output_loss(
        self,
        features: Features,
        labels: Tensor,
        weight: Tensor | None = None,
        normalizer: Tensor | None = None,
    ) -> Tensor:
        """Cross entropy of the model's output; see `loss`."""
        return cross_entropy(self.logits(features), labels, weight, normalizer)

    def deepest_features(self, image: Tensor, backbone: Backbone) -> Tensor:
        """(B, D, h, w): `features(image).deepest` if this model had another `backbone`."""
        return self._levels(backbone, image)[-1]

    def _levels(
        self, backbone: Backbone, image: Tensor, hidden: HiddenTokens | None = None
    ) -> tuple[Tensor, ...]:
        # float32 also under autocast: [0, 255] does not fit into eight bits of mantissa.
        image = image.to(self.pixel_mean.dtype)
        normalised = (image - self.pixel_mean) / self.pixel_std
        return backbone(normalised) if hidden is None else backbone(normalised, hidden)

    def _refuse_smaller_than_a_cell(self, size: Sequence[int]) -> None:
        side = math.ceil(self.backbone.feature_specs[-1].stride)
        if min(size) < side:
            nearest = "x".join(str(max(side, length)) for length in size)
            raise UserError(
                f"image of {size[0]}x{size[1]} pixels: {type(self.backbone).__name__} needs at "
                f"least {side} on each side; the nearest size that fits is {nearest}"
            )


def build_segmentation_model(cfg: CfgNode, num_classes: int) -> SegmentationModel:
    """The network a configuration describes, pretrained weights loaded."""
    return MODELS.get(cfg.MODEL.NAME).from_config(cfg, num_classes)


def to_be_loaded(cfg: CfgNode) -> CfgNode:
    """The configuration of the same network whose every weight comes from a checkpoint.

    It has no adapters: they are folded into the weights, see `folded_state`.
    """
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.BACKBONE.WEIGHTS = ""
    plain.MODEL.BACKBONE.TRAIN = "all"
    plain.freeze()
    return plain


def enlarged(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size) float32 or better, bilinearly, corners not aligned."""
    return F.interpolate(at_least_float32(coarse), size=size, mode="bilinear", align_corners=False)


def _auxiliary_head(
    cfg: CfgNode, feature_specs: Sequence[FeatureSpec], num_classes: int
) -> AuxiliaryHead | None:
    name, level = cfg.MODEL.AUX_HEAD.NAME, cfg.MODEL.AUX_HEAD.LEVEL
    if not name:
        return None
    if level >= len(feature_specs):
        raise UserError(
            f"MODEL.AUX_HEAD.LEVEL: {level}, but this {cfg.MODEL.BACKBONE.NAME} has "
            f"{len(feature_specs)} levels, 0 to {len(feature_specs) - 1}"
        )
    head = HEADS.get(name).from_config(cfg, feature_specs[level : level + 1], num_classes)
    return AuxiliaryHead(head, level, cfg.MODEL.AUX_HEAD.WEIGHT)
