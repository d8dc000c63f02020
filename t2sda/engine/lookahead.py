"""FST's look-ahead teacher (Du et al., NeurIPS 2022), as a hook in place of `EmaTeacher`.

In every iteration the student takes K trial steps on the iteration's own batches, and the teacher
follows each; then the student goes back to where it was and takes the step that counts, taught by a
teacher of the future. It is the paper's variant "deeper".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.engine.ema import EmaTeacher, ema_update_
from t2sda.engine.hooks import RunObjects, TrialStep, hook_classes
from t2sda.engine.optim import Owner
from t2sda.registry import HOOKS
from t2sda.structures import Step

MOMENTS = ("kept", "restored")


def looks_ahead(cfg: CfgNode) -> bool:
    """Whether a run takes trial steps."""
    return any(issubclass(cls, FutureTeacher) for cls in hook_classes(cfg).values())


def steps_per_iteration(cfg: CfgNode) -> int:
    """How many steps an optimizer takes, those included that are undone."""
    return 1 + (cfg.LOOK_AHEAD.STEPS if looks_ahead(cfg) else 0)


SCHEMA.declare(
    "LOOK_AHEAD",
    {
        "STEPS": Field(3, "K, trial steps of an iteration; each costs as much as its own", low=1),
        "MOMENTS": Field(
            "kept",
            "what trial steps leave in the optimizers' moments: all, as in the published code, or "
            "nothing",
            choices=MOMENTS,
        ),
    },
    when=looks_ahead,
    when_text="HOOKS.NAMES holds FutureTeacher",
)


@SCHEMA.check
def one_hook_updates_the_teacher(cfg: CfgNode) -> str | None:
    """Two would average twice in a step."""
    hooks = [name for name, cls in hook_classes(cfg).items() if cls.updates_teacher]
    if len(hooks) < 2:
        return None
    return f"HOOKS.NAMES: {', '.join(hooks)} each update the teacher; list one of them"


@HOOKS.register()
class FutureTeacher(EmaTeacher):
    """The teacher is ahead of the student by K steps that the student does not take.

    The ramp of η counts every update, as in the published code, so it ends K + 1 times earlier.
    Parameters of all owners come back; buffers (BatchNorm's statistics, state of passes) keep what
    they saw, also as published.

    Args:
        student, teacher, ema_momentum: see `EmaTeacher`.
        steps: K.
        moments: one of MOMENTS.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        ema_momentum: float,
        steps: int = 3,
        moments: str = "kept",
    ) -> None:
        super().__init__(student, teacher, ema_momentum)
        self.steps = steps
        self.moments = moments

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> FutureTeacher:
        """Read EMA and LOOK_AHEAD."""
        plain = EmaTeacher.from_config(cfg, run)
        return cls(
            plain.student,
            plain.teacher,
            plain.ema_momentum,
            cfg.LOOK_AHEAD.STEPS,
            cfg.LOOK_AHEAD.MOMENTS,
        )

    def before_step(self, iteration: int, owners: Sequence[Owner], trial: TrialStep) -> None:
        """Trial steps, the teacher behind each; then the student is where it was."""
        parameters = [parameter for owner in owners for parameter in owner.parameters]
        before = [parameter.detach().clone() for parameter in parameters]
        moments = [_copied(owner) for owner in owners] if self.moments == "restored" else []
        for index in range(self.steps):
            trial(index + 1)
            self._follow(iteration, index)
        with torch.no_grad():
            for parameter, kept in zip(parameters, before, strict=True):
                parameter.copy_(kept)
        for owner, state in zip(owners, moments, strict=False):
            owner.optimizer.state.clear()
            owner.optimizer.state.update(state)

    def after_step(self, step: Step) -> None:
        """The teacher follows the step that counts."""
        self._follow(step.iteration, self.steps)

    def _follow(self, iteration: int, index: int) -> None:
        count = iteration * (self.steps + 1) + index
        momentum = min(1 - 1 / (count + 2), self.ema_momentum)
        ema_update_(self.teacher, self.student, momentum)


def _copied(owner: Owner) -> dict[Tensor, dict[str, Any]]:
    return {
        parameter: {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }
        for parameter, state in owner.optimizer.state.items()
    }
