"""Training on labelled source images alone: the baseline of every comparison."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import mean_over_ranks, own_share, world_size
from t2sda.losses.augmentation import (
    augment,
    draw_photometric,
    draw_source_jitter,
    photometric_distortion,
)
from t2sda.meta_arch.augmentations import Augmentation, augmented
from t2sda.meta_arch.base import BuildContext, ImagePass, MetaArch, Reads, has_pass
from t2sda.meta_arch.feature_distance import FeatureDistance
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import Features
from t2sda.registry import AUGMENTATIONS, META_ARCHS, PASSES
from t2sda.structures import Step

SCHEMA.declare(
    "SOURCE_AUGMENTATION",
    {
        "PHOTOMETRIC": Field(
            False,
            "brightness ±32, contrast and saturation 0.5 to 1.5, hue ±18 of 180, each in half of "
            "the images: mmsegmentation's PhotoMetricDistortion, as source-only baselines have it",
        ),
        "JITTER_PROBABILITY": Field(
            0.0,
            "of color jitter in an image, in place of PHOTOMETRIC: brightness ±32/255, contrast "
            "and saturation ±0.5, hue ±18 of 360, with torchvision's meaning; VFM-UDA has 0.9",
            low=0.0,
            high=1.0,
        ),
        "NAME": Field(
            None,
            "a registered augmentation of labelled images, in place of both",
            choices=AUGMENTATIONS,
            optional=True,
            type=str,
        ),
    },
    when=lambda cfg: has_pass(cfg, LabelledPass),
    when_text="META_ARCH.PASSES holds a pass with labels",
)


@SCHEMA.check
def one_source_augmentation(cfg: CfgNode) -> str | None:
    """Colors are distorted in one way or the other."""
    ways = {
        "PHOTOMETRIC": cfg.SOURCE_AUGMENTATION.PHOTOMETRIC,
        "JITTER_PROBABILITY": cfg.SOURCE_AUGMENTATION.JITTER_PROBABILITY,
        "NAME": cfg.SOURCE_AUGMENTATION.NAME,
    }
    wanted = [name for name, value in ways.items() if value]
    if len(wanted) < 2 or not has_pass(cfg, LabelledPass):
        return None
    number = "both" if len(wanted) == 2 else "all"
    listed = f"{', '.join(wanted[:-1])} and {wanted[-1]}"
    return f"SOURCE_AUGMENTATION: {listed} {number} distort colors; set one of them"


class LabelledPass(ImagePass):
    """Cross entropy with the source's labels, averaged over all pixels of the mini-batch.

    Args:
        feature_distance: to the ImageNet encoder, of the same features, if it is wanted.
        photometric: whether colors are distorted (docs/fidelity.md, E6).
        jitter_probability: of color jitter in an image.
        augmentation: in place of both.
    """

    labelled_domain: ClassVar[str]
    carries_feature_distance = True

    def __init__(
        self,
        feature_distance: FeatureDistance | None = None,
        photometric: bool = False,
        jitter_probability: float = 0.0,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.feature_distance = feature_distance
        self.photometric = photometric
        self.jitter_probability = jitter_probability
        self.augmentation = augmentation

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read FEATURE_DISTANCE and SOURCE_AUGMENTATION."""
        distance = FeatureDistance.from_config(cfg, context, cls)
        name = cfg.SOURCE_AUGMENTATION.NAME
        return cls(
            distance,
            cfg.SOURCE_AUGMENTATION.PHOTOMETRIC,
            cfg.SOURCE_AUGMENTATION.JITTER_PROBABILITY,
            None if name is None else AUGMENTATIONS.get(name).from_config(cfg),
        )

    def image(self, step: Step) -> Tensor:
        """The image of the pass's domain; with distorted colors, drawn for all ranks' images."""
        image = step.batch.image(self.labelled_domain)
        count, own = len(image) * world_size(), own_share(len(image))
        if self.photometric:
            generator = step.streams.generator(f"{self.labelled_domain} photometric distortion")
            return photometric_distortion(image, draw_photometric(count, generator)[own])
        if self.jitter_probability:
            generator = step.streams.generator(f"{self.labelled_domain} color jitter")
            drawn = draw_source_jitter(count, generator, self.jitter_probability)
            return augment(image.float(), drawn[own])
        if self.augmentation is not None:
            consumer = f"{self.labelled_domain} augmentation"
            return augmented(image, self.augmentation, step, consumer)
        return image

    def losses(self, student: Branch, features: Features, step: Step) -> dict[str, Tensor]:
        """Returns `loss_source` or `loss_translated`, and `loss_feature_distance` if wanted."""
        labels = step.batch.source_label
        loss = student.model.loss(features, labels, normalizer=whole_batch_pixels(labels))
        losses = {f"loss_{self.labelled_domain}": loss}
        if self.feature_distance is not None:
            losses["loss_feature_distance"] = self.feature_distance(
                student.model, self.image(step), features, labels
            )
        return losses


@PASSES.register("source")
class SourcePass(LabelledPass):
    """Cross entropy on source images, Eq. (1)."""

    labelled_domain = "source"
    forward_of = "source image: backbone, head"


@PASSES.register("translated")
class TranslatedPass(LabelledPass):
    """Cross entropy on translated images, which have the source's labels: Eq. (1) on T(xˢ).

    In place of the source pass it is the FDA baseline, and the ablations' cross entropy on the
    pseudo-target (docs/fidelity.md, B19). The student's BatchNorm records what it sees here.
    """

    labelled_domain = "translated"
    forward_of = "translated image: backbone, head"

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The translated image."""
        return Reads(fields={"translated_image"})


@META_ARCHS.register("SourceOnly")
class SourceOnly(MetaArch):
    """A student and source labels; no teacher, no target."""

    default_passes: ClassVar[tuple[str, ...]] = ("source",)


def whole_batch_pixels(labels: Tensor) -> Tensor:
    """Pixels of the mini-batch, ignored ones too, as a mean over ranks: a loss's denominator."""
    return mean_over_ranks(torch.tensor(float(labels.numel()), device=labels.device))
