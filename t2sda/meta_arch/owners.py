"""How the parameters of an owner, the student or a pass, are trained: plain values, no optimizer.

A pass that owns parameters says so in `StudentPass.optimizer`; the engine builds an optimizer for
each owner and steps them all after the passes of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from fvcore.common.config import CfgNode
from torch import nn
from torch.optim import Optimizer

Groups = list[dict[str, Any]]
"""Parameter groups as torch takes them, each with its lr and weight_decay."""
MakeOptimizer = Callable[[Groups], Optimizer]


@dataclass(frozen=True)
class LrSchedule:
    """Polynomial decay with linear warm-up; a pure function of the iteration, so nothing to save.

    The warm-up multiplies the decayed value, as mmcv's linear warm-up does.

    Args:
        max_iter: where the rate reaches 0.
        warmup_iters: length of the warm-up.
        warmup_ratio: share of the rate that it begins with.
        power: exponent of the decay; 0: constant.
    """

    max_iter: int
    warmup_iters: int = 0
    warmup_ratio: float = 1.0
    power: float = 1.0

    @classmethod
    def of_student(cls, cfg: CfgNode) -> Self:
        """Read SOLVER."""
        return cls(
            cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_RATIO, cfg.SOLVER.POWER
        )

    def factor(self, iteration: int) -> float:
        """Factor of the base learning rate at `iteration`, counted from 0."""
        decay = (1 - iteration / self.max_iter) ** self.power
        if iteration >= self.warmup_iters:
            return decay
        return decay * (1 - (1 - iteration / self.warmup_iters) * (1 - self.warmup_ratio))


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn at one rate, before the schedule."""

    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class OptimizerSettings:
    """How an owner's parameters are trained.

    Args:
        groups: what is trained.
        schedule: factor of the learning rates.
        kind: "adamw" (with a weight decay of 0 it is Adam), "sgd", or what makes another optimizer.
        betas: of AdamW.
        momentum: of SGD.
        grad_clip: largest norm of the owner's gradient; 0: not clipped.
    """

    groups: Sequence[ParameterGroup]
    schedule: LrSchedule
    kind: Literal["adamw", "sgd"] | MakeOptimizer = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    grad_clip: float = 0.0
