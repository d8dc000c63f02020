"""The training loop: one step, straight down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import average_gradients_, mean_over_ranks
from t2sda.engine.hooks import Hook, in_order
from t2sda.engine.optim import LrSchedule, set_learning_rate_
from t2sda.engine.precision import Precision
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch
from t2sda.structures import DomainBatch, RandomStreams, Step

SCHEMA.declare(
    "SOLVER",
    {
        "ACCUMULATION": Field(
            1, "micro-steps whose gradients are averaged into one step; divides BATCH_SIZE", low=1
        ),
        "GRAD_CLIP": Field(0.0, "largest norm of the gradient; 0: not clipped", low=0.0),
    },
)


class NonFiniteLossError(UserError):
    """A loss or the gradient was NaN or infinite; nothing was updated with it."""


@dataclass(frozen=True)
class TrainerSettings:
    """How a step is taken."""

    max_iter: int
    accumulation: int
    grad_clip: float
    seed: int

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TrainerSettings:
        """Read SOLVER and SEED."""
        return cls(
            max_iter=cfg.SOLVER.MAX_ITER,
            accumulation=cfg.SOLVER.ACCUMULATION,
            grad_clip=cfg.SOLVER.GRAD_CLIP,
            seed=cfg.SEED,
        )


class Trainer:
    """Runs steps; what it needs is handed in.

    Args:
        meta_arch: what is trained, on `device` already.
        optimizer: over the student's parameters; its groups have a `base_lr`.
        schedule: learning-rate factor of an iteration.
        precision: autocast and loss scale.
        hooks: in any order; they run by stage.
        settings: how a step is taken.
        device: where batches go.
    """

    def __init__(
        self,
        meta_arch: MetaArch,
        optimizer: torch.optim.Optimizer,
        schedule: LrSchedule,
        precision: Precision,
        hooks: Sequence[Hook],
        settings: TrainerSettings,
        device: torch.device,
    ) -> None:
        self.meta_arch = meta_arch
        self.optimizer = optimizer
        self.schedule = schedule
        self.precision = precision
        self.hooks = in_order(hooks)
        self.settings = settings
        self.device = device
        self._stop_requested = False

    def request_stop(self) -> None:
        """Finish the current step on all ranks, then leave `run`."""
        self._stop_requested = True

    def run(self, batches: Iterable[DomainBatch], first_iteration: int = 0) -> int:
        """Train from `first_iteration` to the end; returns the next iteration that is due.

        Args:
            batches: micro-batches in order, the first one that of `first_iteration`.
            first_iteration: 0, or where a checkpoint was written.
        Raises:
            NonFiniteLossError: see `run_step`.
        """
        for hook in self.hooks:
            hook.before_train(first_iteration)
        stream = iter(batches)
        iteration = first_iteration
        stop = False
        while iteration < self.settings.max_iter and not stop:
            stop = self.run_step(iteration, stream)
            iteration += 1
        for hook in self.hooks:
            hook.after_train(iteration)
        return iteration

    def run_step(self, iteration: int, batches: Iterator[DomainBatch]) -> bool:
        """One optimizer step over `accumulation` micro-batches; returns whether to stop after it.

        Raises:
            NonFiniteLossError: naming the iteration and every loss.
        """
        self.meta_arch.train()
        self.optimizer.zero_grad(set_to_none=True)
        steps = [
            self._run_micro_step(iteration, micro_step, next(batches))
            for micro_step in range(self.settings.accumulation)
        ]
        step = steps[-1]
        average_gradients_(self._parameters())
        self.precision.unscale_(self.optimizer)
        grad_norm = torch.nn.utils.get_total_norm(self._gradients())
        stop = self._read_back(step, steps, grad_norm)
        self._update(iteration, grad_norm)
        for hook in self.hooks:
            hook.after_step(step)
        return stop

    def _run_micro_step(self, iteration: int, micro_step: int, batch: DomainBatch) -> Step:
        streams = RandomStreams(self.settings.seed, iteration, micro_step)
        step = Step(iteration, micro_step, batch.to(self.device), streams)
        with torch.no_grad(), self.precision.autocast():
            step.teacher = self.meta_arch.teach(step)
        for hook in self.hooks:
            hook.after_teacher(step)
        for pass_name in self.meta_arch.pass_names:
            # Dropout and DropPath draw from torch's own generator: one stream per pass.
            torch.manual_seed(streams.seed_of(pass_name))
            with self.precision.autocast():
                losses = self.meta_arch(pass_name, step)
            self.precision.backward(_total(losses) / self.settings.accumulation)
            step.add_losses(losses)
        return step

    def _read_back(self, step: Step, steps: list[Step], grad_norm: Tensor) -> bool:
        """Fill `step.metrics` and check that all is finite: the step's only host synchronisation.

        Losses are means over micro-steps and ranks. Whether any rank was asked to stop travels
        along, so that all ranks leave after the same step.
        """
        names = list(step.losses)
        means = [torch.stack([item.losses[name] for item in steps]).mean() for name in names]
        flag = torch.tensor(float(self._stop_requested), device=self.device)
        vector = torch.stack([*(mean.float() for mean in means), grad_norm.float(), flag])
        *losses, norm, stop = mean_over_ranks(vector).tolist()
        step.metrics.update(dict(zip(names, losses, strict=True)))
        step.metrics["grad_norm"] = norm
        step.metrics["lr"] = self.optimizer.param_groups[0]["base_lr"] * self.schedule.factor(
            step.iteration
        )
        gradient_counts = not self.precision.may_overflow
        if not all(map(math.isfinite, losses)) or (gradient_counts and not math.isfinite(norm)):
            raise NonFiniteLossError(_non_finite_message(step))
        return stop > 0

    def _update(self, iteration: int, grad_norm: Tensor) -> None:
        if self.settings.grad_clip > 0:
            torch.nn.utils.clip_grads_with_norm_(
                self._parameters(), self.settings.grad_clip, grad_norm
            )
        set_learning_rate_(self.optimizer, self.schedule.factor(iteration))
        self.precision.step(self.optimizer)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._parameters() if p.grad is not None]


def _total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _non_finite_message(step: Step) -> str:
    values = ", ".join(f"{name}={value:g}" for name, value in step.metrics.items() if name != "lr")
    return (
        f"iteration {step.iteration}: not finite: {values}; nothing was updated with it. The last "
        f"checkpoint is intact; resume from it with a smaller SOLVER.BASE_LR, with "
        f"SOLVER.GRAD_CLIP, or with SOLVER.PRECISION bf16 or fp32"
    )
