"""The mean teacher's update, as a hook."""

from __future__ import annotations

import logging
import math

import torch
from fvcore.common.config import CfgNode
from torch import nn

from t2sda.config import SCHEMA, Field
from t2sda.engine.hooks import Hook, RunObjects, Stage, hook_classes
from t2sda.registry import HOOKS, META_ARCHS
from t2sda.structures import Step

logger = logging.getLogger(__name__)

SCHEMA.declare(
    "EMA",
    {
        "MOMENTUM": Field(
            0.999,
            "η, weight of the old teacher; it begins at 1/2 and rises to this value",
            low=0.0,
            high=1.0,
        )
    },
    when=lambda cfg: any(issubclass(cls, EmaTeacher) for cls in hook_classes(cfg).values()),
    when_text="HOOKS.NAMES holds EmaTeacher",
)


@SCHEMA.check
def a_teacher_is_kept_up_to_date(cfg: CfgNode) -> str | None:
    """A hook that updates a teacher is there exactly when a teacher is."""
    has_teacher = META_ARCHS.get(cfg.META_ARCH.NAME).has_teacher
    hooks = [name for name, cls in hook_classes(cfg).items() if cls.updates_teacher]
    if has_teacher == bool(hooks):
        return None
    if has_teacher:
        return f"HOOKS.NAMES: {cfg.META_ARCH.NAME} has a teacher; add EmaTeacher, which updates it"
    return f"HOOKS.NAMES: {cfg.META_ARCH.NAME} has no teacher to update; remove {', '.join(hooks)}"


@HOOKS.register()
class EmaTeacher(Hook):
    """θ_t ← η θ_t + (1 - η) θ_s after every step; buffers are copied.

    η ramps up as min(1 - 1 / (iteration + 2), ema_momentum): 1/2, 2/3, 3/4, … The DAFormer family
    averages parameters alone; its teacher is in training mode, and its BatchNorm buffers follow the
    target's batches (docs/fidelity.md, E10). Ours are the student's, so that `TEACHER_NORM` running
    works. The paper has 0.999 from DACS, whose code has 0.99 (docs/fidelity.md, B30).

    Args:
        student, teacher: of one architecture.
        ema_momentum: η.
    """

    stage = Stage.MODEL
    updates_teacher = True

    def __init__(self, student: nn.Module, teacher: nn.Module, ema_momentum: float) -> None:
        self.student = student
        self.teacher = teacher
        self.ema_momentum = ema_momentum

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> EmaTeacher:
        """Read EMA; warn if the run ends before the teacher forgets its beginning."""
        momentum, needed = cfg.EMA.MOMENTUM, _iterations_to_forget(cfg.EMA.MOMENTUM)
        if needed > cfg.SOLVER.MAX_ITER:
            logger.warning(
                "EMA.MOMENTUM %g needs about %d iterations until the teacher is more than the mean "
                "of all steps, SOLVER.MAX_ITER is %d; use a smaller one, such as %.2g",
                *(momentum, needed, cfg.SOLVER.MAX_ITER, max(1 - 30 / cfg.SOLVER.MAX_ITER, 0.5)),
            )
        return cls(run.meta_arch.student, run.meta_arch.teacher, cfg.EMA.MOMENTUM)  # type: ignore[arg-type]

    def before_train(self, first_iteration: int) -> None:
        """The teacher begins as the student, whatever weights that one was given."""
        if first_iteration == 0:
            ema_update_(self.teacher, self.student, ema_momentum=0.0)

    def after_step(self, step: Step) -> None:
        """Update."""
        momentum = min(1 - 1 / (step.iteration + 2), self.ema_momentum)
        ema_update_(self.teacher, self.student, momentum)


def _iterations_to_forget(momentum: float) -> float:
    """3 / (1 - η): a twentieth of the first teacher is left (docs/fidelity.md, E8)."""
    return round(3 / (1 - momentum)) if momentum < 1 else math.inf


@torch.no_grad()
def ema_update_(teacher: nn.Module, student: nn.Module, ema_momentum: float) -> None:
    """θ_t ← η θ_t + (1 - η) θ_s for parameters that the two do not share; buffers are copied."""
    both = zip(teacher.parameters(), student.parameters(), strict=True)
    pairs = [(own, other) for own, other in both if own is not other]
    torch._foreach_lerp_(
        [own for own, _ in pairs], [other for _, other in pairs], weight=1 - ema_momentum
    )
    for own, other in zip(teacher.buffers(), student.buffers(), strict=True):
        own.copy_(other)
