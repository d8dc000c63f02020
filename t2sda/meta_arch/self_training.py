"""Mean teacher with ClassMix: self-training on the target, as DACS and DAFormer do it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import ClassVar, Self

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.distributed import (
    any_over_ranks,
    gather_over_ranks,
    mean_over_ranks,
    own_share,
    world_size,
)
from t2sda.losses.mixing import (
    CLASS_POOLS,
    class_mix,
    draw_pasted_classes,
    mixed_pixel_weight,
    pasted_pixels,
    present_classes,
)
from t2sda.losses.reweighting import pixel_class_weight
from t2sda.meta_arch.base import (
    BuildContext,
    MetaArch,
    StudentPass,
    has_pass,
    teacher_views,
)
from t2sda.meta_arch.source_only import whole_batch_pixels
from t2sda.meta_arch.target_labels import (
    PseudoLabelledPass,
    PseudoLabelWeight,
    StrongAugmentation,
)
from t2sda.modeling.branch import Branch, batch_statistics_untracked
from t2sda.modeling.normalization import WholeBatchNorm2d
from t2sda.modeling.segmentor import Features
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import IGNORE_INDEX, TARGET_PROBS, Step, TeacherOutput, View

TEACHER_NORMS = ("batch", "running")

SCHEMA.declare(
    "SELF_TRAINING",
    {
        "CLASS_POOL": Field(
            "batch",
            "ClassMix pastes half of the classes of the whole batch (DAFormer), or of each image "
            "(DACS)",
            choices=CLASS_POOLS,
        )
    },
    when=lambda cfg: has_pass(cfg, MixedPass),
    when_text="META_ARCH.PASSES holds mixed",
)
SCHEMA.declare(
    "META_ARCH",
    {
        "TEACHER_NORM": Field(
            "batch",
            "BatchNorm of the teacher: statistics of each batch, or the student's running ones",
            choices=TEACHER_NORMS,
        )
    },
    when=lambda cfg: META_ARCHS.get(cfg.META_ARCH.NAME).has_teacher,
    when_text="META_ARCH.NAME has a teacher",
)


class MeanTeacher(MetaArch):
    """A student, and a teacher that is its moving average.

    The teacher normalises by batch statistics and records none; its dropout and DropPath are off.
    Line 10 of Algorithm 1 has it in evaluation mode: `teacher_norm` "running" (docs/fidelity.md,
    B15). Keeping it up to date is a hook's work (`EmaTeacher`).

    Args:
        student: what learns.
        passes: by name, in order.
        views: what the teacher is asked for; the same order on every rank.
        teacher_norm: one of TEACHER_NORMS.
        flip: whether probabilities of the target are the mean over the image and its mirror image.
    """

    has_teacher: ClassVar[bool] = True

    def __init__(
        self,
        student: Branch,
        passes: dict[str, StudentPass],
        views: Sequence[View],
        teacher_norm: str = "batch",
        flip: bool = False,
    ) -> None:
        super().__init__(student, passes)
        self.flip = flip
        self.views = views
        self.teacher_norm = teacher_norm
        frozen = {id(p): p for p in student.parameters() if not p.requires_grad}
        # What the student does not train is not copied: both hold the same parameters.
        self.teacher = copy.deepcopy(student, frozen).requires_grad_(False)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, context: BuildContext, student: Branch, passes: dict[str, StudentPass]
    ) -> MeanTeacher:
        """Read the teacher's settings, and what passes and hooks ask of it."""
        norm, flip = cfg.META_ARCH.TEACHER_NORM, cfg.SELF_TRAINING.FLIP
        return cls(student, passes, teacher_views(cfg), norm, flip)

    def train(self, mode: bool = True) -> MeanTeacher:
        """Student and passes as usual; of the teacher at most BatchNorm is in training mode."""
        super().train(mode)
        self.teacher.eval()
        for module in self.teacher.modules():
            if isinstance(module, (nn.BatchNorm2d, WholeBatchNorm2d)):
                module.training = mode and self.teacher_norm == "batch"
        return self

    def teach(self, step: Step) -> TeacherOutput:
        """One teacher forward for each image that some view shows, whatever is asked of it."""
        output: dict[View, Tensor] = {}
        # Views are sorted by image, so those of one image are neighbours and share its forward.
        with batch_statistics_untracked(self.teacher):
            for image, views in groupby(self.views, key=lambda view: view.image):
                features = self.teacher.model.features(step.batch.image(image))
                output |= {view: OUTPUTS[view.output](self.teacher, features) for view in views}
            if self.flip and TARGET_PROBS in output:
                # Probabilities are averaged, not logits: the mean is a distribution again.
                mirrored = self.teacher.model.features(step.batch.image("target").flip(-1))
                output[TARGET_PROBS] = (
                    output[TARGET_PROBS] + _probs(self.teacher, mirrored).flip(-1)
                ) / 2
        return TeacherOutput(output)


def _probs(branch: Branch, features: Features) -> Tensor:
    return branch.model.logits(features).softmax(dim=1)


OUTPUTS: dict[str, Callable[[Branch, Features], Tensor]] = {
    "embeddings": Branch.embed,
    "probs": _probs,
}
"""What a `View` may ask for."""


@PASSES.register("mixed")
class MixedPass(PseudoLabelledPass):
    """Cross entropy on target images with pasted source classes, Eq. (S1).

    The source's pixels keep their labels; the target's have the teacher's pseudo-labels, weighted
    by their quality (S2) and not at all in the margins. A re-weighting hook may weigh all pixels by
    their class on top. The student sees the mixed image after color jitter and blur, the teacher
    saw the clean target (docs/fidelity.md, B18).

    Args:
        class_pool: whose classes are pasted, "batch" or "image".
        pseudo_label_weight: q.
        augmentation: of the mixed image.
    """

    weighs_target_classes = True
    augmentation_stream = "strong augmentation"
    forward_of = "augmented target image with pasted source classes: backbone, head"

    def __init__(
        self,
        class_pool: str,
        pseudo_label_weight: PseudoLabelWeight,
        augmentation: StrongAugmentation,
    ) -> None:
        super().__init__(pseudo_label_weight, augmentation)
        self.class_pool = class_pool

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read SELF_TRAINING and STRONG_AUGMENTATION."""
        return cls(
            cfg.SELF_TRAINING.CLASS_POOL,
            PseudoLabelWeight.from_config(cfg),
            StrongAugmentation.from_config(cfg, cls.augmentation_stream),
        )

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_mixed`."""
        batch, (teacher, valid) = step.batch, self.taught(step)
        mask = self._pasted(step)
        quality = self.pseudo_label_weight(teacher.confidence)
        labels = class_mix(batch.source_label, teacher.pseudo_labels, mask)
        # (b, H, W): 1 on pasted pixels, q on the target's, 0 in the margins, Eq. (S2).
        weight = mixed_pixel_weight(mask, quality, valid)
        if step.target_class_weights is not None:
            weight = _reweighted(weight, labels, step.target_class_weights)
        features = self.features(student, self._mixed_image(step, mask), step)
        loss = student.model.loss(features, labels, weight, whole_batch_pixels(labels))
        return {"loss_mixed": loss}

    def shown(self, student: Branch, step: Step) -> Tensor:
        """The mixed image, augmented."""
        return self._mixed_image(step, self._pasted(step))

    def _mixed_image(self, step: Step, mask: Tensor) -> Tensor:
        batch = step.batch
        image = class_mix(batch.source_image, batch.image("target"), mask)
        return self.augmentation(image, step)

    def _pasted(self, step: Step) -> Tensor:
        """(b, H, W) bool: half of the pool's classes, drawn for each image of all ranks."""
        labels = step.batch.source_label
        present = present_classes(labels, self.class_pool)  # (b, 256) bool
        if self.class_pool == "batch":
            # All rows are the same pool, which is that of the mini-batch over all ranks.
            present = any_over_ranks(present[0]).expand(len(labels) * world_size(), -1)
        else:
            present = gather_over_ranks(present)
        generator = step.streams.generator("class mix", labels.device)
        # Every rank draws for all images and takes its own: two ranks draw what one would.
        pasted = draw_pasted_classes(present, generator)
        return pasted_pixels(labels, pasted[own_share(len(labels))])


def _reweighted(weight: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """(b, H, W) pixel weights times w*[label], divided by the mean w* of the pixels that count.

    So the mini-batch's pixels weigh in all what they did before: C·w* has mean 1 over classes, not
    over pixels, and the loss would shrink with it (docs/fidelity.md, E3).
    """
    counted = weight * (labels != IGNORE_INDEX)
    weighted = counted * pixel_class_weight(labels, class_weights)
    # One reduction for both sums; without a pixel that counts there is nothing to scale.
    before, after = mean_over_ranks(torch.stack([counted.sum(), weighted.sum()]))
    return weighted * torch.where(after > 0, before / after, 0)


@META_ARCHS.register("SelfTraining")
class SelfTraining(MeanTeacher):
    """DACS: source cross entropy, and ClassMix with a mean teacher's pseudo-labels."""

    default_passes: ClassVar[tuple[str, ...]] = ("source", "mixed")
