"""Mean teacher with ClassMix: self-training on the target, as DACS and DAFormer do it."""

from __future__ import annotations

import copy
from typing import ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.distributed import any_over_ranks, mean_over_ranks, own_share, world_size
from t2sda.losses.augmentation import augment, draw_augmentations
from t2sda.losses.mixing import (
    class_mix,
    draw_pasted_classes,
    mixed_pixel_weight,
    pasted_pixels,
    present_classes,
)
from t2sda.losses.pseudo_labels import pseudo_label_quality
from t2sda.losses.reweighting import pixel_class_weight
from t2sda.losses.segmentation import cross_entropy
from t2sda.meta_arch.base import MetaArch, StudentPass, build_passes, pass_names
from t2sda.meta_arch.source_only import whole_batch_pixels
from t2sda.modeling.branch import Branch, batch_statistics_untracked
from t2sda.modeling.normalization import WholeBatchNorm2d
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import Step, TeacherOutput

SCHEMA.declare(
    "SELF_TRAINING",
    {
        "PSEUDO_LABEL_THRESHOLD": Field(
            0.968,
            "δ_p: the share of target pixels at least this confident weighs the pseudo-labels",
            low=0.0,
            high=1.0,
        )
    },
    when=lambda cfg: "mixed" in pass_names(cfg),
    when_text="META_ARCH.PASSES holds mixed",
)


class MeanTeacher(MetaArch):
    """A student, and a teacher that is its moving average.

    The teacher normalises by batch statistics and records none; its dropout and DropPath are off.
    Keeping it up to date is a hook's work (`EmaTeacher`).

    Args:
        student: what learns.
        passes: by name, in order.
    """

    has_teacher: ClassVar[bool] = True

    def __init__(self, student: Branch, passes: dict[str, StudentPass]) -> None:
        super().__init__(student, passes)
        self.teacher = copy.deepcopy(student).requires_grad_(False)

    def train(self, mode: bool = True) -> MeanTeacher:
        """Student and passes as usual; of the teacher only BatchNorm is in training mode."""
        super().train(mode)
        self.teacher.eval()
        for module in self.teacher.modules():
            if isinstance(module, (nn.BatchNorm2d, WholeBatchNorm2d)):
                module.training = mode
        return self

    def teach(self, step: Step) -> TeacherOutput:
        """One teacher forward for each domain that some pass needs."""
        batch, needs = step.batch, self.teacher_needs
        output: dict[str, Tensor] = {}
        with batch_statistics_untracked(self.teacher):
            if "source_embeddings" in needs:
                features = self.teacher.model.features(batch.source_image)
                output["source_embeddings"] = self.teacher.embed(features)
            if needs & {"target_embeddings", "target_probs"}:
                assert batch.target_image is not None, "the configuration's check lets none pass"
                features = self.teacher.model.features(batch.target_image)
                logits = self.teacher.model.logits_from_features(
                    features, batch.target_image.shape[-2:]
                )
                output["target_probs"] = logits.float().softmax(dim=1)
            if "target_embeddings" in needs:
                output["target_embeddings"] = self.teacher.embed(features)
            if "translated_embeddings" in needs:
                assert batch.translated_image is not None, (
                    "the configuration's check lets none pass"
                )
                features = self.teacher.model.features(batch.translated_image)
                output["translated_embeddings"] = self.teacher.embed(features)
        return TeacherOutput(**output)


@PASSES.register("mixed")
class MixedPass(StudentPass):
    """Cross entropy on target images with pasted source classes, Eq. (S1).

    The source's pixels keep their labels; the target's have the teacher's pseudo-labels, weighted
    by their quality (S2) and not at all in the margins. A re-weighting hook may weigh all pixels by
    their class on top. The student sees the mixed image after colour jitter and blur, the teacher
    saw the clean target.

    Args:
        pseudo_label_threshold: δ_p.
    """

    teacher_needs = frozenset({"target_probs"})
    needs_target = True

    def __init__(self, pseudo_label_threshold: float) -> None:
        super().__init__()
        self.pseudo_label_threshold = pseudo_label_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode) -> MixedPass:
        """Read SELF_TRAINING."""
        return cls(cfg.SELF_TRAINING.PSEUDO_LABEL_THRESHOLD)

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_mixed`."""
        batch, teacher = step.batch, step.teacher
        assert teacher is not None
        assert batch.target_image is not None
        assert batch.target_valid is not None
        mask = self._pasted(step)
        quality = mean_over_ranks(
            pseudo_label_quality(teacher.confidence, self.pseudo_label_threshold)
        )
        image = class_mix(batch.source_image, batch.target_image, mask)
        labels = class_mix(batch.source_label, teacher.pseudo_labels, mask)
        weight = mixed_pixel_weight(mask, quality, batch.target_valid)
        if step.target_class_weights is not None:
            weight = weight * pixel_class_weight(labels, step.target_class_weights)
        logits = student.model(self._augmented(image.float(), step))
        loss = cross_entropy(logits, labels, weight, whole_batch_pixels(labels))
        return {"loss_mixed": loss}

    def _pasted(self, step: Step) -> Tensor:
        """(b, H, W) bool: half of the whole batch's classes, drawn for each image of all ranks."""
        labels = step.batch.source_label
        present = any_over_ranks(present_classes(labels)[0])
        generator = step.streams.generator("class mix", labels.device)
        pasted = draw_pasted_classes(present.expand(len(labels) * world_size(), -1), generator)
        return pasted_pixels(labels, pasted[own_share(len(labels))])

    def _augmented(self, image: Tensor, step: Step) -> Tensor:
        generator = step.streams.generator("strong augmentation")
        drawn = draw_augmentations(len(image) * world_size(), generator)
        return augment(image, drawn[own_share(len(image))])


@META_ARCHS.register("SelfTraining")
class SelfTraining(MeanTeacher):
    """DACS: source cross entropy, and ClassMix with a mean teacher's pseudo-labels."""

    default_passes: ClassVar[tuple[str, ...]] = ("source", "mixed")

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> SelfTraining:
        """Build student, teacher and passes."""
        student = Branch(build_segmentation_model(cfg, num_classes))
        return cls(student, build_passes(cfg))
