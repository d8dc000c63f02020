"""Distance to the features of the frozen ImageNet encoder, which keeps what it knows of things."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.data.joined import source_taxonomy
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import mean_over_ranks
from t2sda.errors import UserError
from t2sda.losses.feature_distance import summed_feature_distance, thing_cells
from t2sda.losses.numerics import at_least_float32
from t2sda.meta_arch.base import pass_names
from t2sda.modeling.backbones.base import Backbone
from t2sda.registry import BACKBONES

LABELLED_PASSES = {
    "source": "source",
    "source_pull": "source",
    "translated": "translated",
    "translated_pull": "translated",
}
"""The domain of the passes that may carry the distance; the first of them in a run does."""

SCHEMA.declare(
    "FEATURE_DISTANCE",
    {
        "WEIGHT": Field(
            0.0, "weight of the distance to ImageNet features; 0: none, 0.005: DAFormer", low=0.0
        )
    },
    when=lambda cfg: carrying_domain(cfg) is not None,
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


def carrying_domain(cfg: CfgNode) -> str | None:
    """The domain whose labelled pass holds the distance in its backward."""
    return next(
        (LABELLED_PASSES[name] for name in pass_names(cfg) if name in LABELLED_PASSES), None
    )


class FeatureDistance(nn.Module):
    """Euclidean distance of the coarsest features to those of the ImageNet encoder, on things.

    Averaged over the cells of the feature grid that a thing fills, in the whole mini-batch; 0 where
    there is none. The encoder alone is kept, frozen and in evaluation mode (docs/fidelity.md, A4).

    Args:
        encoder: the student's backbone with its pretrained weights.
        thing_ids: train ids of the classes that count.
        weight: of the loss.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    thing_ids: Tensor

    def __init__(self, encoder: Backbone, thing_ids: Sequence[int], weight: float) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.weight = weight
        constants = {
            "pixel_mean": torch.tensor(encoder.pixel_mean).view(3, 1, 1),
            "pixel_std": torch.tensor(encoder.pixel_std).view(3, 1, 1),
            "thing_ids": torch.tensor(thing_ids),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, domain: str) -> FeatureDistance | None:
        """Read FEATURE_DISTANCE; None where it is off, or another domain's pass carries it."""
        if cfg.FEATURE_DISTANCE.WEIGHT == 0 or carrying_domain(cfg) != domain:
            return None
        thing_ids = thing_ids_of(source_taxonomy(cfg), cfg.FEATURE_DISTANCE.CLASSES)
        encoder = BACKBONES.get(cfg.MODEL.BACKBONE.NAME).from_config(cfg)
        return cls(encoder, thing_ids, cfg.FEATURE_DISTANCE.WEIGHT)

    def train(self, mode: bool = True) -> FeatureDistance:
        """The encoder stays in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """The weighted loss.

        Args:
            image: (B, 3, H, W) RGB in [0, 255].
            features: (B, D, h, w), the student's coarsest features of `image`.
            labels: (B, H, W) int64 train ids or IGNORE_INDEX.
        Returns:
            Scalar.
        """
        height, width = features.shape[-2:]
        cells = thing_cells(labels, self.thing_ids, (height, width))
        with torch.no_grad():
            image = image.to(self.pixel_mean.dtype)
            reference = self.encoder((image - self.pixel_mean) / self.pixel_std)[-1]
        distance = summed_feature_distance(
            at_least_float32(features), at_least_float32(reference), cells
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
