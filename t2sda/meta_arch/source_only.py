"""Training on labelled source images alone: the baseline of every comparison."""

from __future__ import annotations

from typing import ClassVar

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.distributed import mean_over_ranks
from t2sda.losses.segmentation import cross_entropy
from t2sda.meta_arch.base import ImagePass, MetaArch, build_passes
from t2sda.meta_arch.feature_distance import FeatureDistance
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import DomainBatch, Step


class LabelledPass(ImagePass):
    """Cross entropy with the source's labels, averaged over all pixels of the mini-batch.

    Args:
        feature_distance: to the ImageNet encoder, of the same features, if it is wanted.
    """

    domain: ClassVar[str]

    def __init__(self, feature_distance: FeatureDistance | None = None) -> None:
        super().__init__()
        self.feature_distance = feature_distance

    @classmethod
    def from_config(cls, cfg: CfgNode) -> LabelledPass:
        """Read FEATURE_DISTANCE."""
        return cls(FeatureDistance.from_config(cfg, cls.domain))

    def losses(
        self, student: Branch, features: tuple[Tensor, ...], step: Step
    ) -> dict[str, Tensor]:
        """Returns `loss_source` or `loss_translated`, and `loss_feature_distance` if wanted."""
        labels = step.batch.source_label
        logits = student.model.logits_from_features(features, labels.shape[-2:])
        loss = cross_entropy(logits, labels, normalizer=whole_batch_pixels(labels))
        losses = {f"loss_{self.domain}": loss}
        if self.feature_distance is not None:
            image = self.image(step.batch)
            losses["loss_feature_distance"] = self.feature_distance(image, features[-1], labels)
        return losses


@PASSES.register("source")
class SourcePass(LabelledPass):
    """Cross entropy on source images, Eq. (1)."""

    domain = "source"
    forward_of = "source image: backbone, head"

    def image(self, batch: DomainBatch) -> Tensor:
        """The source image."""
        return batch.source_image


@PASSES.register("translated")
class TranslatedPass(LabelledPass):
    """Cross entropy on translated images, which have the source's labels: Eq. (1) on T(xˢ).

    In place of the source pass it is the FDA baseline, and the ablations' cross entropy on the
    pseudo-target (docs/fidelity.md, B19). The student's BatchNorm records what it sees here.
    """

    domain = "translated"
    forward_of = "translated image: backbone, head"
    needs_translation = True

    def image(self, batch: DomainBatch) -> Tensor:
        """The translated image."""
        assert batch.translated_image is not None, "the configuration's check lets none pass"
        return batch.translated_image


@META_ARCHS.register("SourceOnly")
class SourceOnly(MetaArch):
    """A student and source labels; no teacher, no target."""

    default_passes: ClassVar[tuple[str, ...]] = ("source",)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> SourceOnly:
        """Build the student and the passes."""
        student = Branch(build_segmentation_model(cfg, num_classes))
        return cls(student, build_passes(cfg))


def whole_batch_pixels(labels: Tensor) -> Tensor:
    """Pixels of the mini-batch, ignored ones too, as a mean over ranks: a loss's denominator."""
    return mean_over_ranks(torch.tensor(float(labels.numel()), device=labels.device))
