"""Training on labelled source images alone: the baseline of every comparison."""

from __future__ import annotations

from typing import ClassVar

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.distributed import mean_over_ranks
from t2sda.losses.segmentation import cross_entropy
from t2sda.meta_arch.base import MetaArch, StudentPass, build_passes
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import Step


@PASSES.register("source")
class SourcePass(StudentPass):
    """Cross entropy on source images, Eq. (1), averaged over all pixels of the mini-batch."""

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_source`."""
        logits = student.model(step.batch.source_image)
        labels = step.batch.source_label
        return {"loss_source": cross_entropy(logits, labels, normalizer=whole_batch_pixels(labels))}


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
