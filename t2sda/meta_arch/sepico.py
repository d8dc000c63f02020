"""SePiCo (Xie et al., TPAMI 2023): features of both domains to distributions of the source."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.distributed import CumulativeClassMeans, mean_over_ranks, world_size
from t2sda.losses.distribution import distribution_contrast, majority_labels
from t2sda.losses.numerics import l2_normalize
from t2sda.meta_arch.base import BuildContext, Reads, StudentPass, has_pass
from t2sda.meta_arch.self_training import MeanTeacher
from t2sda.meta_arch.source_only import SourcePass
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import Features
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import IGNORE_INDEX, TARGET_PROBS, Step, View

MOMENTS = "class_moments"
"""In `Step.shared`: (2, C, D), means and variances by class; NaN for a class not seen yet."""
SOURCE_EMBEDDINGS = View("source", "embeddings")


def contrasts_distributions(cfg: CfgNode) -> bool:
    """Whether embeddings are contrasted with class distributions."""
    return has_pass(cfg, SourceContrastPass)


SCHEMA.declare(
    "SEPICO",
    {
        "WEIGHT": Field(1.0, "weight of the contrast", low=0.0, exclusive_low=True),
        "TEMPERATURE": Field(100.0, "τ, of unit vectors", low=0.0, exclusive_low=True),
        "START": Field(3000, "iteration from which on the contrast counts", low=0),
    },
    when=contrasts_distributions,
    when_text="META_ARCH.PASSES holds source_contrast",
)


class ClassMoments(CumulativeClassMeans):
    """Mean and variance of every class over all steps so far, of all ranks.

    Args:
        num_classes: C.
        channels: D.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__(num_classes, 2 * channels)  # means of x and of x²

    def update_(self, values: Tensor, labels: Tensor, *, last: bool) -> None:
        """Take in (N, D) values of (N,) labels, as `ClassSums` does."""
        super().update_(torch.cat([values, values.square()], dim=1), labels, last=last)

    def shared(self) -> Tensor:
        """See MOMENTS."""
        first, second = self.means.chunk(2, dim=1)
        moments = torch.stack([first, (second - first.square()).clamp(min=0)])
        return moments.masked_fill(~self.known[None, :, None], float("nan"))


class Contrast(nn.Module):
    """Weighted mean of `distribution_contrast` over the cells of an image that have a label.

    Args:
        weight, temperature: of it.
        start: iteration from which on it counts.
    """

    def __init__(self, weight: float, temperature: float, start: int) -> None:
        super().__init__()
        self.weight = weight
        self.temperature = temperature
        self.start = start

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Contrast:
        """Read SEPICO."""
        return cls(cfg.SEPICO.WEIGHT, cfg.SEPICO.TEMPERATURE, cfg.SEPICO.START)

    def forward(self, student: Branch, features: Features, labels: Tensor, step: Step) -> Tensor:
        """(B, H, W) labels of the image that the features are of -> scalar."""
        embeddings = student.embed(features)
        cells, rows = on_grid(embeddings, labels, student.model.num_classes)
        means, variances = step.shared[MOMENTS]
        known = ~means[:, 0].isnan()
        losses = distribution_contrast(
            l2_normalize(rows),
            cells,
            means.nan_to_num(),
            variances.nan_to_num(),
            known,
            self.temperature,
        )
        counted = known[cells.clamp(max=len(known) - 1)] & (cells < len(known))
        total = mean_over_ranks(counted.sum()).clamp(min=1 / world_size())
        weight = self.weight if step.iteration >= self.start else 0.0
        return weight * losses.sum() / total


def on_grid(embeddings: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """(N,) labels of cells and (N, D) embeddings, of (B, D, h, w) and (B, H, W)."""
    cells = majority_labels(labels, num_classes, (embeddings.shape[-2], embeddings.shape[-1]))
    return cells.flatten(), embeddings.movedim(1, -1).flatten(0, 2)


@PASSES.register("source_contrast")
class SourceContrastPass(SourcePass):
    """The source pass, and the contrast of the same features; gathers the moments.

    Moments are those of the teacher's embeddings of the source.
    """

    provides = frozenset({MOMENTS})
    forward_of = "source image: backbone, head, projector"
    moments: ClassMoments
    contrast: Contrast

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read SEPICO, and what the source pass reads."""
        built = super().from_config(cfg, context)
        built.moments = ClassMoments(context.num_classes, cfg.MODEL.PROJECTOR.CHANNELS)
        built.contrast = Contrast.from_config(cfg)
        return built

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The teacher's embeddings of the source."""
        return super().reads(cfg) | Reads(views={SOURCE_EMBEDDINGS})

    def losses(self, student: Branch, features: Features, step: Step) -> dict[str, Tensor]:
        """Returns the source pass's losses and `loss_source_contrast`."""
        assert step.teacher is not None
        labels, num_classes = step.batch.source_label, student.model.num_classes
        cells, rows = on_grid(step.teacher[SOURCE_EMBEDDINGS], labels, num_classes)
        self.moments.update_(l2_normalize(rows), cells, last=step.is_last_micro_step)
        step.shared[MOMENTS] = self.moments.shared()
        losses = super().losses(student, features, step)
        contrast = self.contrast(student, features, labels, step)
        return {**losses, "loss_source_contrast": contrast}


@PASSES.register("target_contrast")
class TargetContrastPass(StudentPass):
    """The contrast of target features with the source's moments, by the teacher's pseudo-labels.

    Args:
        contrast: of its embeddings.
    """

    forward_of = "target image: backbone, projector"

    def __init__(self, contrast: Contrast) -> None:
        super().__init__()
        self.contrast = contrast

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read SEPICO."""
        return cls(Contrast.from_config(cfg))

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The target, its pseudo-labels, and the moments."""
        fields = {"target_image", "target_valid"}
        return Reads(fields=fields, views={TARGET_PROBS}, shared={MOMENTS})

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_target_contrast`."""
        assert step.teacher is not None
        assert step.batch.target_valid is not None
        labels = step.teacher.pseudo_labels.where(step.batch.target_valid, IGNORE_INDEX)
        features = self.features(student, step.batch.image("target"), step)
        return {"loss_target_contrast": self.contrast(student, features, labels, step)}


@META_ARCHS.register()
class SePiCo(MeanTeacher):
    """Self-training, and the contrast on both domains."""

    default_passes: ClassVar[tuple[str, ...]] = ("source_contrast", "mixed", "target_contrast")
    has_projector = True
