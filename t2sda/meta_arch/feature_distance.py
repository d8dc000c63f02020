"""Distance to the features of the frozen ImageNet encoder, which keeps what it knows of things."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import mean_over_ranks
from t2sda.errors import UserError
from t2sda.losses.feature_distance import summed_feature_distance, thing_cells
from t2sda.losses.numerics import at_least_float32
from t2sda.meta_arch.base import BuildContext, StudentPass, pass_classes
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.segmentor import Features, SegmentationModel
from t2sda.registry import BACKBONES, PASSES

SCHEMA.declare(
    "FEATURE_DISTANCE",
    {
        "WEIGHT": Field(
            0.0, "weight of the distance to ImageNet features; 0: none, 0.005: DAFormer", low=0.0
        )
    },
    when=lambda cfg: carrying_pass(cfg) is not None,
    when_text="META_ARCH.PASSES holds a pass with labels",
)
SCHEMA.declare(
    "FEATURE_DISTANCE",
    {
        "CLASSES": Field(
            (), "names of the classes that count; empty: the things of the taxonomy", element=str
        )
    },
    when=lambda cfg: cfg.FEATURE_DISTANCE.WEIGHT > 0,
    when_text="FEATURE_DISTANCE.WEIGHT > 0",
)


@SCHEMA.check
def there_are_imagenet_features(cfg: CfgNode) -> str | None:
    """An encoder of random weights knows nothing to keep."""
    if cfg.FEATURE_DISTANCE.WEIGHT == 0 or cfg.MODEL.BACKBONE.WEIGHTS:
        return None
    return (
        "FEATURE_DISTANCE.WEIGHT: MODEL.BACKBONE.WEIGHTS is empty, so there are no ImageNet "
        "features to keep near; name the weights, or set FEATURE_DISTANCE.WEIGHT 0"
    )


@SCHEMA.check
def the_compared_level_is_pretrained(cfg: CfgNode) -> str | None:
    """Two pyramids that begin random would be compared, the student's and one that never learns."""
    name = cfg.MODEL.BACKBONE.NAME
    if cfg.FEATURE_DISTANCE.WEIGHT == 0 or not BACKBONES.get(name).has_fresh_levels(cfg):
        return None
    return (
        f"FEATURE_DISTANCE.WEIGHT: the levels of this {name} are those of a pyramid that begins "
        f"random, so there are no ImageNet features to keep near; set "
        f"MODEL.BACKBONE.PYRAMID_CHANNELS 0 to compare the last tokens, or FEATURE_DISTANCE.WEIGHT "
        f"0"
    )


@SCHEMA.check
def the_encoder_can_move(cfg: CfgNode) -> str | None:
    """A frozen encoder keeps its distance without a loss."""
    if cfg.FEATURE_DISTANCE.WEIGHT == 0 or cfg.MODEL.BACKBONE.TRAIN != "none":
        return None
    return (
        "FEATURE_DISTANCE.WEIGHT: has no effect on a frozen encoder (MODEL.BACKBONE.TRAIN none); "
        "set FEATURE_DISTANCE.WEIGHT 0"
    )


def carrying_pass(cfg: CfgNode) -> str | None:
    """The pass that holds the distance in its backward: the first one that can."""
    able = (name for name, cls in pass_classes(cfg).items() if cls.carries_feature_distance)
    return next(able, None)


class FeatureDistance(nn.Module):
    """Euclidean distance of the coarsest features to those of the ImageNet encoder, on things.

    Averaged over the cells of the feature grid that a thing fills, in the whole mini-batch; 0 where
    there is none. The encoder alone is kept, frozen and in evaluation mode (docs/fidelity.md, A4).

    Args:
        encoder: the student's backbone with its pretrained weights.
        thing_ids: train ids of the classes that count.
        weight: of the loss.
    """

    thing_ids: Tensor

    def __init__(self, encoder: Backbone, thing_ids: Sequence[int], weight: float) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.weight = weight
        self.register_buffer("thing_ids", torch.tensor(thing_ids), persistent=False)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, context: BuildContext, carrier: type[StudentPass]
    ) -> FeatureDistance | None:
        """Read FEATURE_DISTANCE; None where it is off, or another pass carries it."""
        name = carrying_pass(cfg)
        if cfg.FEATURE_DISTANCE.WEIGHT == 0 or name is None or PASSES.get(name) is not carrier:
            return None
        thing_ids = thing_ids_of(context.taxonomy, cfg.FEATURE_DISTANCE.CLASSES)
        encoder = BACKBONES.get(cfg.MODEL.BACKBONE.NAME).from_config(cfg)
        return cls(encoder, thing_ids, cfg.FEATURE_DISTANCE.WEIGHT)

    def train(self, mode: bool = True) -> FeatureDistance:
        """The encoder stays in evaluation mode."""
        return super().train(False)

    def forward(
        self, model: SegmentationModel, image: Tensor, features: Features, labels: Tensor
    ) -> Tensor:
        """The weighted loss.

        Args:
            model: the student's, which knows what its encoder is shown of an image.
            image: (B, 3, H, W) RGB in [0, 255].
            features: of `image`, by the student.
            labels: (B, H, W) int64 train ids or IGNORE_INDEX.
        Returns:
            Scalar.
        """
        deepest = features.deepest
        cells = thing_cells(labels, self.thing_ids, (deepest.shape[-2], deepest.shape[-1]))
        with torch.no_grad():
            reference = model.deepest_features(image, self.encoder)
        distance = summed_feature_distance(
            at_least_float32(deepest), at_least_float32(reference), cells
        )
        count = mean_over_ranks(cells.sum().to(distance.dtype))
        return self.weight * distance / count.masked_fill(count == 0, 1.0)


def thing_ids_of(taxonomy: Taxonomy, class_names: Sequence[str]) -> tuple[int, ...]:
    """Train ids of the named classes, or of the taxonomy's things.

    Raises:
        UserError: if a name is none of the taxonomy's, or if none is given and it has no things.
    """
    if not class_names and not taxonomy.things:
        raise UserError(
            f"FEATURE_DISTANCE.CLASSES: empty, and the taxonomy '{taxonomy.name}' names no things; "
            f"list class names ({', '.join(taxonomy.class_names)}), or set FEATURE_DISTANCE.WEIGHT "
            f"0"
        )
    return taxonomy.ids_of(class_names or taxonomy.things)
