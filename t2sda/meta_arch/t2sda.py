"""T2S-DA: pull pseudo-target features to the source prototypes of their class."""

from __future__ import annotations

from typing import ClassVar, Self

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.meta_arch.base import BuildContext, ImagePass, Reads
from t2sda.meta_arch.pull import Pull
from t2sda.meta_arch.self_training import MeanTeacher
from t2sda.meta_arch.source_only import SourcePass, TranslatedPass
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import Features
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import Step


@PASSES.register("pull")
class PullPass(ImagePass):
    """λ L_pull, Eq. (3), of pseudo-target queries, on a student forward of its own.

    The student's BatchNorm in the model does not record the statistics of translated images: the
    model is what ships, and it will never see one. No decoder runs in this pass, and there is no
    cross entropy on the pseudo-target (docs/fidelity.md, B15, B19).

    Args:
        pull: the loss.
    """

    pulls = True
    records_statistics = False
    forward_of = "translated image: backbone, projector"

    def __init__(self, pull: Pull) -> None:
        super().__init__()
        self.pull = pull

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read T2SDA."""
        return cls(Pull.from_config(cfg, context))

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The translated image, and what the pairing reads."""
        return Reads(fields={"translated_image"}) | Pull.reads(cfg)

    def image(self, step: Step) -> Tensor:
        """The translated image."""
        return step.batch.image("translated")

    def losses(self, student: Branch, features: Features, step: Step) -> dict[str, Tensor]:
        """Returns `loss_pull`."""
        return self.pull.losses(student, features, step)


class PullBeside(ImagePass):
    """λ L_pull of queries from another pass's forward: `class Mine(PullBeside, ThatPass)`."""

    pulls = True
    pull: Pull

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read T2SDA, and what the other pass reads."""
        built = super().from_config(cfg, context)
        built.pull = Pull.from_config(cfg, context)
        return built

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """What both read."""
        return super().reads(cfg) | Pull.reads(cfg)

    def losses(self, student: Branch, features: Features, step: Step) -> dict[str, Tensor]:
        """Returns the other pass's losses and `loss_pull`."""
        others = super().losses(student, features, step)  # type: ignore[safe-super]
        return {**others, **self.pull.losses(student, features, step)}


@PASSES.register("source_pull")
class SourcePullPass(PullBeside, SourcePass):
    """The source pass, and source queries: vanilla contrast, source → target and the like."""

    forward_of = "source image: backbone, head, projector"


@PASSES.register("translated_pull")
class TranslatedPullPass(PullBeside, TranslatedPass):
    """Cross entropy on translated images, and pseudo-target queries."""

    forward_of = "translated image: backbone, head, projector"


@META_ARCHS.register()
class T2SDA(MeanTeacher):
    """The paper's method: self-training, and the pull loss on projected features."""

    default_passes: ClassVar[tuple[str, ...]] = ("source", "mixed", "pull")
    has_projector = True
