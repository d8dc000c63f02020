"""What is trained: an ordered list of student passes, and the teacher that serves them.

A pass is one student forward on one image batch plus the losses that hang on it. The trainer calls
the passes one by one and takes the gradient of each at once, so that peak memory is that of one
student graph. Methods combine by listing passes; nothing here steps, logs, saves or calls backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, cast

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.data.joined import joined_name
from t2sda.modeling.branch import Branch, batch_statistics_untracked
from t2sda.registry import META_ARCHS, PASSES, TRANSLATORS
from t2sda.structures import DomainBatch, Step, TeacherOutput

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
            "are what ships; empty: all passes but pull and masked",
            element=str,
        ),
    },
)


class Reads(NamedTuple):
    """What a pass reads in a run."""

    teacher: frozenset[str]
    """Fields of `TeacherOutput`."""
    target: bool
    """Whether it reads the target half of the batch, itself or through the teacher."""
    translation: bool
    """Whether it reads the translated image, itself or through the teacher."""


class StudentPass(nn.Module, ABC):
    """One student forward on one image batch, and its losses.

    Attributes:
        teacher_needs: fields of `TeacherOutput` that the pass reads.
        needs_target: whether it reads the target half of the batch.
        needs_translation: whether it reads the translated image.
        records_statistics: whether the BatchNorm of the student's model records this pass's images
            in its running statistics; META_ARCH.BN_TRACK overrides it.
        forward_of: what goes through which networks, in words, for the plan of a run.
    """

    teacher_needs: frozenset[str] = frozenset()
    needs_target: ClassVar[bool] = False
    needs_translation: ClassVar[bool] = False
    records_statistics: bool = True
    forward_of: ClassVar[str] = "one student forward"

    @classmethod
    def from_config(cls, cfg: CfgNode) -> StudentPass:
        """Read the pass's settings."""
        return cls()

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """What it reads in a run with this configuration; by default what the class says."""
        return Reads(cls.teacher_needs, cls.needs_target, cls.needs_translation)

    @abstractmethod
    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Run the student once; returns scalar losses by name, already weighted."""


class ImagePass(StudentPass):
    """A pass in two halves, image and losses, so that other losses can share its forward."""

    @abstractmethod
    def image(self, batch: DomainBatch) -> Tensor:
        """(B, 3, H, W), what the student is shown."""

    @abstractmethod
    def losses(
        self, student: Branch, features: tuple[Tensor, ...], step: Step
    ) -> dict[str, Tensor]:
        """Scalar losses by name, already weighted, of the student's features of `image`."""

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Run the student once; returns its losses."""
        return self.losses(student, student.model.features(self.image(step.batch)), step)


class MetaArch(nn.Module):
    """The student, the teacher if the method has one, and the passes.

    Args:
        student: what learns.
        passes: by name, in order.

    Attributes:
        default_passes: what a step consists of unless META_ARCH.PASSES says otherwise.
        has_teacher: whether there is a teacher, which a hook must keep up to date.
    """

    default_passes: ClassVar[tuple[str, ...]] = ()
    has_teacher: ClassVar[bool] = False

    def __init__(self, student: Branch, passes: dict[str, StudentPass]) -> None:
        super().__init__()
        self.student = student
        self.passes = nn.ModuleDict(passes)

    @property
    def pass_names(self) -> tuple[str, ...]:
        """The passes of a step, in order."""
        return tuple(self.passes)

    @property
    def teacher_needs(self) -> frozenset[str]:
        """Fields of `TeacherOutput` that some pass reads."""
        return frozenset().union(*(student_pass.teacher_needs for student_pass in self._passes()))

    def teach(self, step: Step) -> TeacherOutput | None:
        """What the teacher sees in this batch; None without a teacher. Called without gradient."""
        return None

    def forward(self, pass_name: str, step: Step) -> dict[str, Tensor]:
        """Run one pass: one student forward, its losses by name."""
        student_pass = cast(StudentPass, self.passes[pass_name])
        if student_pass.records_statistics:
            return student_pass(self.student, step)
        with batch_statistics_untracked(self.student.model):
            return student_pass(self.student, step)

    def _passes(self) -> list[StudentPass]:
        return [cast(StudentPass, student_pass) for student_pass in self.passes.values()]


@SCHEMA.check
def passes_have_what_they_read(cfg: CfgNode) -> list[str]:
    """A pass that reads the target or its style needs them set; unread ones are an error too."""
    reads = {name: PASSES.get(name).reads(cfg) for name in pass_names(cfg)}
    translated = [name for name, item in reads.items() if item.translation]
    targeted = [name for name, item in reads.items() if item.target]
    if cfg.TRANSLATION.NAME and TRANSLATORS.get(cfg.TRANSLATION.NAME).needs_target:
        targeted += [f"{name} (through TRANSLATION.NAME)" for name in translated]
    return [
        *_needed_or_without_effect("TRANSLATION.NAME", cfg.TRANSLATION.NAME, translated),
        *_needed_or_without_effect("DATASETS.TARGET", joined_name(cfg.DATASETS.TARGET), targeted),
    ]


@SCHEMA.check
def names_are_listed_once(cfg: CfgNode) -> list[str]:
    """A pass or hook that is listed twice would run once, or update twice."""
    lists = {"META_ARCH.PASSES": cfg.META_ARCH.PASSES, "HOOKS.NAMES": cfg.HOOKS.NAMES}
    return [
        f"{key}: {', '.join(names)} lists a name twice; list each once"
        for key, names in lists.items()
        if len(set(names)) < len(names)
    ]


@SCHEMA.check
def passes_have_a_teacher(cfg: CfgNode) -> str | None:
    """A pass that learns from a teacher needs a method that has one."""
    taught = [name for name in pass_names(cfg) if PASSES.get(name).reads(cfg).teacher]
    if not taught or META_ARCHS.get(cfg.META_ARCH.NAME).has_teacher:
        return None
    return (
        f"META_ARCH.PASSES: {', '.join(taught)} learn from a teacher, which {cfg.META_ARCH.NAME} "
        f"lacks; use a META_ARCH.NAME that has one, such as SelfTraining"
    )


@SCHEMA.check
def statistics_are_recorded(cfg: CfgNode) -> list[str]:
    """BN_TRACK names passes of the step, and some pass fills the running statistics."""
    unknown = [name for name in cfg.META_ARCH.BN_TRACK if name not in pass_names(cfg)]
    problems = [
        f"META_ARCH.BN_TRACK: {', '.join(unknown)} are no passes of this run, which has "
        f"{', '.join(pass_names(cfg))}"
    ]
    return problems if unknown else []


def pass_names(cfg: CfgNode) -> tuple[str, ...]:
    """The passes of a step in this configuration, in order."""
    return cfg.META_ARCH.PASSES or META_ARCHS.get(cfg.META_ARCH.NAME).default_passes


def recording_passes(cfg: CfgNode) -> tuple[str, ...]:
    """The passes whose images the student's running statistics record (docs/fidelity.md, B15)."""
    if cfg.META_ARCH.BN_TRACK:
        return cfg.META_ARCH.BN_TRACK
    return tuple(name for name in pass_names(cfg) if PASSES.get(name).records_statistics)


def _needed_or_without_effect(key: str, value: str, readers: list[str]) -> list[str]:
    if readers and not value:
        return [f"{key}: empty, but the passes {', '.join(readers)} need it"]
    if value and not readers:
        return [f"{key}: '{value}' has no effect in this run, as no pass reads it; remove it"]
    return []


def build_passes(cfg: CfgNode) -> dict[str, StudentPass]:
    """The configured passes by name, or the meta-architecture's own."""
    passes = {name: PASSES.get(name).from_config(cfg) for name in pass_names(cfg)}
    for name, student_pass in passes.items():
        student_pass.records_statistics = name in recording_passes(cfg)
    return passes


def build_meta_arch(cfg: CfgNode, num_classes: int) -> MetaArch:
    """The configured meta-architecture, with freshly initialised or pretrained weights."""
    return META_ARCHS.get(cfg.META_ARCH.NAME).from_config(cfg, num_classes)
