"""What is trained: an ordered list of student passes, and the teacher that serves them.

A pass is one student forward on one image batch plus the losses that hang on it. The trainer calls
the passes one by one and takes the gradient of each at once, so that peak memory is that of one
student graph. Methods combine by listing passes; nothing here steps, logs, saves or calls backward.
What a pass, a meta-architecture or a hook can do is asked of its class, never of its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.meta_arch.owners import OptimizerSettings
from t2sda.modeling.branch import Branch, batch_statistics_untracked
from t2sda.modeling.projector import Projector
from t2sda.modeling.segmentor import Features, SegmentationModel, build_segmentation_model
from t2sda.registry import HOOKS, META_ARCHS, PASSES
from t2sda.structures import FeatureSpec, Step, TeacherOutput, View

SCHEMA.declare(
    "META_ARCH",
    {
        "NAME": Field("SourceOnly", "what is trained"),
        "PASSES": Field(
            (),
            "student passes in order; empty: those of the meta-architecture itself",
            element=str,
        ),
        "BN_TRACK": Field(
            (),
            "passes whose images the student's BatchNorm records in its running statistics, which "
            "are what ships; empty: target_statistics if it is listed, else all passes but pull "
            "and masked",
            element=str,
        ),
    },
)


@dataclass(frozen=True)
class Reads:
    """What a pass or a hook reads in a run."""

    fields: Set[str] = frozenset()
    """Of `DomainBatch`, beside the source's: "target_image", "translated_image", …"""
    views: Set[View] = frozenset()
    """Of the teacher."""
    shared: Set[str] = frozenset()
    """Of `Step.shared`, which an earlier pass `provides`."""

    def __or__(self, other: Reads) -> Reads:
        return Reads(
            self.fields | other.fields, self.views | other.views, self.shared | other.shared
        )

    @property
    def batch_fields(self) -> frozenset[str]:
        """Fields of the batch that are read directly or through the teacher."""
        named = {f"{view.image}_image" for view in self.views if isinstance(view.image, str)}
        return frozenset(self.fields | named)


@dataclass(frozen=True)
class BuildContext:
    """What passes and meta-architectures know of the run they are built for."""

    taxonomy: Taxonomy
    feature_specs: tuple[FeatureSpec, ...]
    """Levels of the student's backbone, finest first."""
    tokens: FeatureSpec | None = None
    """Tokens of the student's backbone that a pass may hide; None: there are none."""

    @property
    def num_classes(self) -> int:
        """C."""
        return self.taxonomy.num_classes


class StudentPass(nn.Module, ABC):
    """One student forward on one image batch, and its losses.

    Attributes:
        name: under which it is listed; set by the meta-architecture.
        records_statistics: whether the BatchNorm of the student's model records this pass's images
            in its running statistics; META_ARCH.BN_TRACK overrides it.
        records_alone: whether other passes then record nothing, unless META_ARCH.BN_TRACK says so.
        provides: names that it writes into `Step.shared`, for later passes.
        pulls: whether it carries the pull loss, which the embeddings' class weights weigh.
        uses_pseudo_labels: whether it trains on the teacher's pseudo-labels.
        weighs_target_classes: whether its loss follows `Step.target_class_weights`.
        labelled_domain: "source" or "translated" if it has cross entropy with the source's labels.
        carries_feature_distance: whether FEATURE_DISTANCE may hang on its forward.
        forward_of: what goes through which networks, in words, for the plan of a run.
    """

    name: str = ""
    records_statistics: bool = True
    records_alone: ClassVar[bool] = False
    provides: ClassVar[Set[str]] = frozenset()
    pulls: ClassVar[bool] = False
    uses_pseudo_labels: ClassVar[bool] = False
    weighs_target_classes: ClassVar[bool] = False
    labelled_domain: ClassVar[str | None] = None
    carries_feature_distance: ClassVar[bool] = False
    forward_of: ClassVar[str] = "one student forward"

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read the pass's settings."""
        return cls()

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """What it reads in a run with this configuration, beside source images and labels."""
        return Reads()

    def optimizer(self) -> OptimizerSettings | None:
        """How the pass's own parameters are trained, if it has any."""
        return None

    @abstractmethod
    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Run the student once; returns scalar losses by name, already weighted, if it has any."""

    def shown(self, student: Branch, step: Step) -> Tensor | None:
        """(B, 3, H, W), what the student was shown in this step, for images of the training.

        Computed anew from the pass's own random streams, and on all ranks, since some draw for the
        whole mini-batch; None: nothing that is worth an image.
        """
        return None

    def features(self, student: Branch, image: Tensor, step: Step) -> Features:
        """The student's features of (B, 3, H, W), with a random stream that is the pass's own."""
        return student.model.features(image, step.streams.generator(f"{self.name} features"))


class ImagePass(StudentPass):
    """A pass in two halves, image and losses, so that other losses can share its forward."""

    @abstractmethod
    def image(self, step: Step) -> Tensor:
        """(B, 3, H, W), what the student is shown."""

    @abstractmethod
    def losses(self, student: Branch, features: Features, step: Step) -> dict[str, Tensor]:
        """Scalar losses by name, already weighted, of the student's features of `image`."""

    def shown(self, student: Branch, step: Step) -> Tensor | None:
        """Its image."""
        return self.image(step)

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Run the student once; returns its losses."""
        return self.losses(student, self.features(student, self.image(step), step), step)


class MetaArch(nn.Module):
    """The student, the teacher if the method has one, and the passes.

    Args:
        student: what learns.
        passes: by name, in order.

    Attributes:
        default_passes: what a step consists of unless META_ARCH.PASSES says otherwise.
        has_teacher: whether there is a teacher, which a hook must keep up to date.
        has_projector: whether the student gets a projector, so that passes may ask for embeddings.
    """

    default_passes: ClassVar[tuple[str, ...]] = ()
    has_teacher: ClassVar[bool] = False
    has_projector: ClassVar[bool] = False

    def __init__(self, student: Branch, passes: dict[str, StudentPass]) -> None:
        super().__init__()
        self.student = student
        self.passes = nn.ModuleDict(passes)
        for name, student_pass in passes.items():
            student_pass.name = name

    @classmethod
    def from_config(
        cls, cfg: CfgNode, context: BuildContext, student: Branch, passes: dict[str, StudentPass]
    ) -> MetaArch:
        """Read the method's settings; student and passes are built already."""
        return cls(student, passes)

    @property
    def pass_names(self) -> tuple[str, ...]:
        """The passes of a step, in order."""
        return tuple(self.passes)

    def teach(self, step: Step) -> TeacherOutput | None:
        """What the teacher sees in this batch; None without a teacher. Called without gradient."""
        return None

    def forward(self, pass_name: str, step: Step) -> dict[str, Tensor]:
        """Run one pass: one student forward, its losses by name."""
        student_pass = cast(StudentPass, self.passes[pass_name])
        if student_pass.records_statistics:
            losses = student_pass(self.student, step)
        else:
            with batch_statistics_untracked(self.student.model):
                losses = student_pass(self.student, step)
        for name in student_pass.provides:
            assert name in step.shared, f"the pass '{pass_name}' provides '{name}', but shared none"
            assert not step.shared[name].requires_grad, (
                f"the pass '{pass_name}' shares '{name}' with its graph, which is gone when "
                f"another pass reads it; detach it"
            )
        return losses


def pass_names(cfg: CfgNode) -> tuple[str, ...]:
    """The passes of a step in this configuration, in order."""
    return cfg.META_ARCH.PASSES or META_ARCHS.get(cfg.META_ARCH.NAME).default_passes


def pass_classes(cfg: CfgNode) -> dict[str, type[StudentPass]]:
    """Their classes, by name."""
    return {name: PASSES.get(name) for name in pass_names(cfg)}


def has_pass(cfg: CfgNode, kind: type[StudentPass]) -> bool:
    """Whether some pass of the run is of this class, or derived from it."""
    return any(issubclass(cls, kind) for cls in pass_classes(cfg).values())


def readings(cfg: CfgNode) -> dict[str, Reads]:
    """What every pass and hook reads, by name, in the order of a step."""
    hooks = {name: HOOKS.get(name) for name in cfg.HOOKS.NAMES}
    return {name: cls.reads(cfg) for name, cls in (pass_classes(cfg) | hooks).items()}


def teacher_views(cfg: CfgNode) -> list[View]:
    """The views that passes and hooks read, in an order that is the same on every rank."""
    views = {view for item in readings(cfg).values() for view in item.views}
    return sorted(views, key=lambda view: (view.image_name, view.output))


def reads_target_labels(cfg: CfgNode) -> bool:
    """Whether a pass or a hook reads the labels that the target set carries."""
    return any("target_label" in item.batch_fields for item in readings(cfg).values())


def recording_passes(cfg: CfgNode) -> tuple[str, ...]:
    """The passes whose images the student's running statistics record (docs/fidelity.md, B15)."""
    if cfg.META_ARCH.BN_TRACK:
        return cfg.META_ARCH.BN_TRACK
    recording = {name: cls for name, cls in pass_classes(cfg).items() if cls.records_statistics}
    return tuple(name for name, cls in recording.items() if cls.records_alone) or tuple(recording)


def build_passes(cfg: CfgNode, context: BuildContext) -> dict[str, StudentPass]:
    """The configured passes by name, or the meta-architecture's own."""
    passes = {name: cls.from_config(cfg, context) for name, cls in pass_classes(cfg).items()}
    for name, student_pass in passes.items():
        student_pass.records_statistics = name in recording_passes(cfg)
    return passes


def build_meta_arch(
    cfg: CfgNode, taxonomy: Taxonomy, model: SegmentationModel | None = None
) -> MetaArch:
    """The configured meta-architecture, with freshly initialised or pretrained weights.

    Args:
        cfg: resolved.
        taxonomy: of the source.
        model: of the student, in place of the one that MODEL describes.
    Raises:
        UserError: if the model has other classes, or a head that its loss does not train, or no
            statistics for a pass that does nothing but record them.
    """
    meta_arch = META_ARCHS.get(cfg.META_ARCH.NAME)
    if model is None:
        model = build_segmentation_model(cfg, taxonomy.num_classes)
    elif model.num_classes != taxonomy.num_classes:
        raise UserError(
            f"the model has {model.num_classes} classes, the source {taxonomy.num_classes}; build "
            f"it with the classes of DATASETS.SOURCE"
        )
    if model.aux_head is not None and not model.trains_aux_head:
        raise UserError(aux_head_never_learns(type(model)))
    alone = [name for name, cls in pass_classes(cfg).items() if cls.records_alone]
    if alone and not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise UserError(
            f"META_ARCH.PASSES: {', '.join(alone)} has no effect, as there is no BatchNorm whose "
            f"running statistics it could record; remove it"
        )
    context = BuildContext(taxonomy, model.feature_specs, model.backbone.tokens)
    projector = None
    if meta_arch.has_projector:
        projector = Projector.from_config(cfg, context.feature_specs)
    level = cfg.MODEL.PROJECTOR.LEVEL if meta_arch.has_projector else -1
    student = Branch(model, projector, level)
    return meta_arch.from_config(cfg, context, student, build_passes(cfg, context))


def aux_head_never_learns(model: type[SegmentationModel]) -> str:
    """What is said of an auxiliary head on a model whose loss leaves it out."""
    return (
        f"MODEL.AUX_HEAD.NAME: the auxiliary head would never learn, as {model.__name__} has a "
        f"loss of its own; leave it empty, or add the head's part to that loss and set "
        f"trains_aux_head = True in the class"
    )
