"""T2S-DA: pull pseudo-target features to the source prototypes of their class."""

from __future__ import annotations

from typing import ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.meta_arch.base import ImagePass, Reads, build_passes
from t2sda.meta_arch.pull import Pull
from t2sda.meta_arch.self_training import MeanTeacher
from t2sda.meta_arch.source_only import SourcePass, TranslatedPass
from t2sda.modeling.branch import Branch
from t2sda.modeling.projector import Projector
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import DomainBatch, Step


@PASSES.register("pull")
class PullPass(ImagePass):
    """λ L_pull, Eq. (3), of pseudo-target queries, on a student forward of its own.

    The student's BatchNorm in the model does not record the statistics of translated images: the
    model is what ships, and it will never see one. No decoder runs in this pass, and there is no
    cross entropy on the pseudo-target (docs/fidelity.md, B15, B19).

    Args:
        pull: the loss.
    """

    records_statistics = False
    forward_of = "translated image: backbone, projector"

    def __init__(self, pull: Pull) -> None:
        super().__init__()
        self.pull = pull
        self.teacher_needs = pull.teacher_needs

    @classmethod
    def from_config(cls, cfg: CfgNode) -> PullPass:
        """Read T2SDA."""
        return cls(Pull.from_config(cfg))

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The translated image, and what the pairing reads."""
        return Pull.from_config(cfg).reads()._replace(translation=True)

    def image(self, batch: DomainBatch) -> Tensor:
        """The translated image."""
        assert batch.translated_image is not None, "the configuration's check lets none pass"
        return batch.translated_image

    def losses(
        self, student: Branch, features: tuple[Tensor, ...], step: Step
    ) -> dict[str, Tensor]:
        """Returns `loss_pull`."""
        return self.pull.losses(student, features, step)


class LabelledPullPass(ImagePass):
    """A pass with labels, and λ L_pull of queries from the same student forward.

    Args:
        labelled: the pass that the queries are taken from.
        pull: the loss.
    """

    labelled_pass: ClassVar[type[SourcePass | TranslatedPass]]

    def __init__(self, labelled: ImagePass, pull: Pull) -> None:
        super().__init__()
        self.labelled = labelled
        self.pull = pull
        self.teacher_needs = labelled.teacher_needs | pull.teacher_needs

    @classmethod
    def from_config(cls, cfg: CfgNode) -> LabelledPullPass:
        """Read T2SDA, and what the labelled pass reads."""
        labelled = cls.labelled_pass.from_config(cfg)
        assert isinstance(labelled, ImagePass)
        return cls(labelled, Pull.from_config(cfg))

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """What both halves read."""
        labelled, pull = cls.labelled_pass.reads(cfg), Pull.from_config(cfg).reads()
        return Reads(
            labelled.teacher | pull.teacher,
            labelled.target or pull.target,
            labelled.translation or pull.translation,
        )

    def image(self, batch: DomainBatch) -> Tensor:
        """The labelled pass's image."""
        return self.labelled.image(batch)

    def losses(
        self, student: Branch, features: tuple[Tensor, ...], step: Step
    ) -> dict[str, Tensor]:
        """Returns the labelled pass's losses and `loss_pull`."""
        return {
            **self.labelled.losses(student, features, step),
            **self.pull.losses(student, features, step),
        }


@PASSES.register("source_pull")
class SourcePullPass(LabelledPullPass):
    """The source pass, and source queries: vanilla contrast, source → target and the like."""

    labelled_pass = SourcePass
    forward_of = "source image: backbone, head, projector"


@PASSES.register("translated_pull")
class TranslatedPullPass(LabelledPullPass):
    """Cross entropy on translated images, and pseudo-target queries."""

    labelled_pass = TranslatedPass
    forward_of = "translated image: backbone, head, projector"


@META_ARCHS.register()
class T2SDA(MeanTeacher):
    """The paper's method: self-training, and the pull loss on projected features."""

    default_passes: ClassVar[tuple[str, ...]] = ("source", "mixed", "pull")

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> T2SDA:
        """Build student and teacher with their projectors, and the passes."""
        model = build_segmentation_model(cfg, num_classes)
        projector = Projector.from_config(cfg, model.backbone.feature_specs)
        student = Branch(model, projector, cfg.MODEL.PROJECTOR.LEVEL)
        return cls(student, build_passes(cfg), cfg.META_ARCH.TEACHER_NORM)
