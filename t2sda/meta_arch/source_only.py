"""Training on labelled source images alone: the baseline of every comparison."""

from __future__ import annotations

from typing import ClassVar

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.distributed import mean_over_ranks
from t2sda.losses.segmentation import cross_entropy
from t2sda.meta_arch.base import ImagePass, MetaArch, build_passes
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import DomainBatch, Step


@PASSES.register("source")
class SourcePass(ImagePass):
    """Cross entropy on source images, Eq. (1), averaged over all pixels of the mini-batch."""

    def image(self, batch: DomainBatch) -> Tensor:
        """The source image."""
        return batch.source_image

    def losses(
        self, student: Branch, features: tuple[Tensor, ...], step: Step
    ) -> dict[str, Tensor]:
        """Returns `loss_source`."""
        return {"loss_source": source_cross_entropy(student, features, step)}


@PASSES.register("translated")
class TranslatedPass(ImagePass):
    """Cross entropy on translated images, which have the source's labels: Eq. (1) on T(xˢ).

    In place of the source pass it is the ablations' cross entropy on the pseudo-target
    (docs/fidelity.md, B19). The student's BatchNorm records what it sees here.
    """

    needs_translation = True

    def image(self, batch: DomainBatch) -> Tensor:
        """The translated image."""
        assert batch.translated_image is not None, "the configuration's check lets none pass"
        return batch.translated_image

    def losses(
        self, student: Branch, features: tuple[Tensor, ...], step: Step
    ) -> dict[str, Tensor]:
        """Returns `loss_translated`."""
        return {"loss_translated": source_cross_entropy(student, features, step)}


@META_ARCHS.register("SourceOnly")
class SourceOnly(MetaArch):
    """A student and source labels; no teacher, no target."""

    default_passes: ClassVar[tuple[str, ...]] = ("source",)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> SourceOnly:
        """Build the student and the passes."""
        student = Branch(build_segmentation_model(cfg, num_classes))
        return cls(student, build_passes(cfg))


def source_cross_entropy(student: Branch, features: tuple[Tensor, ...], step: Step) -> Tensor:
    """Eq. (1): the head's logits on `features` against the source's labels."""
    labels = step.batch.source_label
    logits = student.model.logits_from_features(features, labels.shape[-2:])
    return cross_entropy(logits, labels, normalizer=whole_batch_pixels(labels))


def whole_batch_pixels(labels: Tensor) -> Tensor:
    """Pixels of the mini-batch, ignored ones too, as a mean over ranks: a loss's denominator."""
    return mean_over_ranks(torch.tensor(float(labels.numel()), device=labels.device))
