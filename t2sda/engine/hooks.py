"""Hooks: what some runs need, attached to moments of the training loop.

A hook is built from the live objects it uses, reads `Step`, writes at most the one field it owns
and keeps no state unless it says so in `state_dict`: what depends on time follows from
`step.iteration`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch, Reads
from t2sda.registry import HOOKS
from t2sda.structures import Step

if TYPE_CHECKING:
    from t2sda.engine.optim import Owner

SCHEMA.declare("HOOKS", {"NAMES": Field((), "hooks to attach", element=str)})


class Stage(IntEnum):
    """The order of hooks after a step, whatever the list says."""

    MODEL = 0  # what changes the model: EMA
    METRICS = 1  # what reports
    EVALUATION = 2
    CHECKPOINT = 3  # last, so that a checkpoint holds all the step has done


@dataclass(frozen=True)
class RunObjects:
    """The live objects that a registered hook may be built from."""

    meta_arch: MetaArch
    output_dir: Path
    class_names: tuple[str, ...] = ()
    """For the names of metrics; empty: classes go by their numbers."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """One for each class."""
        return self.class_names or tuple(map(str, range(self.meta_arch.student.model.num_classes)))


class TrialStep(Protocol):
    """Takes a step on the iteration's own batches that a hook will undo."""

    def __call__(self, attempt: int) -> object:
        """`attempt`: 1, 2, …; each draws random numbers of its own."""


class Hook:
    """Base of all hooks; every moment does nothing unless overridden.

    Attributes:
        stage: when it runs after a step.
        updates_teacher: whether it keeps a teacher up to date.
        weighs_classes: whether it writes class weights, for the loss of REWEIGHTING.APPLY_TO.
    """

    stage: ClassVar[Stage] = Stage.METRICS
    updates_teacher: ClassVar[bool] = False
    weighs_classes: ClassVar[bool] = False

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> Hook:
        """Build the hook for a run."""
        return cls()

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """What it reads in a run with this configuration: views of the teacher are computed."""
        return Reads()

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs to go on exactly: tensors alone, numbers as tensors of them."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on with what a checkpoint holds."""

    def before_train(self, first_iteration: int) -> None:
        """Once, before the first step."""

    def before_step(self, iteration: int, owners: Sequence[Owner], trial: TrialStep) -> None:
        """Before the step of an iteration; what it tries it undoes itself."""

    def after_teacher(self, step: Step) -> None:
        """In every micro-step, between the teacher and the first pass."""

    def after_step(self, step: Step) -> None:
        """After the optimizer's step; `step` is the last micro-step's record."""

    def after_evaluation(self, iteration: int, scores: Mapping[str, float]) -> None:
        """After an evaluation, on every rank; it comes before `after_step` of Stage.CHECKPOINT.

        Args:
            iteration: steps done.
            scores: by name, as "rendered_val/mIoU", "rendered_val/IoU/car": shares from 0 to 1.
        """

    def should_stop(self) -> bool:
        """Whether the run ends here, before MAX_ITER; asked after every step, and when it resumes.

        All ranks must say the same.
        """
        return False

    def after_train(self, next_iteration: int) -> None:
        """Once, after the last step, also when the run was asked to stop early."""


def hook_classes(cfg: CfgNode) -> dict[str, type[Hook]]:
    """The classes of the hooks that the configuration names, by name."""
    return {name: HOOKS.get(name) for name in cfg.HOOKS.NAMES}


def in_order(hooks: Sequence[Hook]) -> list[Hook]:
    """Hooks by stage; within a stage as listed."""
    return sorted(hooks, key=lambda hook: hook.stage)


def build_hooks(cfg: CfgNode, run: RunObjects) -> dict[str, Hook]:
    """The hooks that the configuration names, by name."""
    return {name: cls.from_config(cfg, run) for name, cls in hook_classes(cfg).items()}


def named_hooks(hooks: Sequence[Hook], others: Mapping[str, Hook]) -> dict[str, Hook]:
    """Hooks that were handed in by the names of their classes, as HOOKS.NAMES has them.

    Raises:
        UserError: if one has the name of another; their states would be mixed up.
    """
    named: dict[str, Hook] = {}
    for hook in hooks:
        name = type(hook).__name__
        if name in others or name in named:
            raise UserError(f"two hooks are called {name}; give the class of one another name")
        named[name] = hook
    return named
