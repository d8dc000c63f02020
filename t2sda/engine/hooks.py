"""Hooks: what some runs need, attached to moments of the training loop.

A hook is built from the live objects it uses, reads `Step`, writes at most the one field it owns
and keeps no state: what depends on time follows from `step.iteration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.meta_arch.base import MetaArch
from t2sda.registry import HOOKS
from t2sda.structures import Step

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


class Hook:
    """Base of all hooks; every moment does nothing unless overridden."""

    stage: ClassVar[Stage] = Stage.METRICS

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> Hook:
        """Build the hook for a run."""
        return cls()

    def before_train(self, first_iteration: int) -> None:
        """Once, before the first step."""

    def after_teacher(self, step: Step) -> None:
        """In every micro-step, between the teacher and the first pass."""

    def after_step(self, step: Step) -> None:
        """After the optimizer's step; `step` is the last micro-step's record."""

    def after_train(self, next_iteration: int) -> None:
        """Once, after the last step, also when the run was asked to stop early."""


def in_order(hooks: Sequence[Hook]) -> list[Hook]:
    """Hooks by stage; within a stage as listed."""
    return sorted(hooks, key=lambda hook: hook.stage)


def build_hooks(cfg: CfgNode, run: RunObjects) -> list[Hook]:
    """The hooks that the configuration names."""
    return [HOOKS.get(name).from_config(cfg, run) for name in cfg.HOOKS.NAMES]
