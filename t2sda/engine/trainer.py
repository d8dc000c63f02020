"""The training loop: one step, straight down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import average_gradients_, mean_over_ranks, rank
from t2sda.engine.hooks import Hook, in_order
from t2sda.engine.optim import STUDENT, Owner, check_every_parameter_is_trained
from t2sda.engine.precision import Precision
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch
from t2sda.modeling.normalization import single_values_named
from t2sda.structures import DomainBatch, RandomStreams, Step

SCHEMA.declare(
    "SOLVER",
    {
        "ACCUMULATION": Field(
            1, "micro-steps whose gradients are averaged into one step; divides BATCH_SIZE", low=1
        ),
    },
)


class NonFiniteLossError(UserError):
    """A loss or the gradient was NaN or infinite; nothing was updated with it."""


@dataclass(frozen=True)
class TrainerSettings:
    """How a step is taken."""

    max_iter: int
    accumulation: int
    seed: int

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TrainerSettings:
        """Read SOLVER and SEED."""
        return cls(
            max_iter=cfg.SOLVER.MAX_ITER,
            accumulation=cfg.SOLVER.ACCUMULATION,
            seed=cfg.SEED,
        )


class Trainer:
    """Runs steps; what it needs is handed in.

    Args:
        meta_arch: what is trained, on `device` already.
        owners: of the parameters, the student first.
        precision: autocast and loss scale.
        hooks: in any order; they run by stage.
        settings: how a step is taken.
        device: where batches go.
    Raises:
        UserError: if a parameter that could learn has no optimizer, or two.
    """

    def __init__(
        self,
        meta_arch: MetaArch,
        owners: Sequence[Owner],
        precision: Precision,
        hooks: Sequence[Hook],
        settings: TrainerSettings,
        device: torch.device,
    ) -> None:
        self.meta_arch = meta_arch
        check_every_parameter_is_trained(meta_arch, owners)
        self.owners = list(owners)
        self.precision = precision
        self.hooks = in_order(hooks)
        self.settings = settings
        self.device = device
        self._stop_requested = False

    def request_stop(self) -> None:
        """Finish the current step on all ranks, then leave `run`."""
        self._stop_requested = True

    @property
    def is_ended(self) -> bool:
        """Whether a hook says that the run ends here."""
        return any(hook.should_stop() for hook in self.hooks)

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
        while iteration < self.settings.max_iter and not (stop or self.is_ended):
            stop = self.run_step(iteration, stream)
            iteration += 1
        for hook in self.hooks:
            hook.after_train(iteration)
        return iteration

    def run_step(self, iteration: int, batches: Iterator[DomainBatch]) -> bool:
        """One optimizer step over `accumulation` micro-batches; returns whether to stop after it.

        Raises:
            NonFiniteLossError: naming the iteration and every loss.
            UserError: if a BatchNorm gets a single value to take statistics of.
        """
        micro_batches = [next(batches) for _ in range(self.settings.accumulation)]
        for hook in self.hooks:
            hook.before_step(
                iteration,
                self.owners,
                lambda attempt: self._take_step(iteration, micro_batches, attempt),
            )
        step, stop = self._take_step(iteration, micro_batches)
        for hook in self.hooks:
            hook.after_step(step)
        return stop

    def _take_step(
        self, iteration: int, micro_batches: Sequence[DomainBatch], attempt: int = 0
    ) -> tuple[Step, bool]:
        """Gradients of all micro-batches, and the optimizers' step; `attempt` 0 is what counts."""
        self.meta_arch.train()
        for owner in self.owners:
            owner.optimizer.zero_grad(set_to_none=True)
        steps = []
        for micro_step, batch in enumerate(micro_batches):
            streams = RandomStreams(
                self.settings.seed, iteration, micro_step + attempt * len(micro_batches)
            )
            with single_values_named(self.meta_arch, batch.source_image.shape[-2:]):
                steps.append(self._run_micro_step(iteration, micro_step, batch, streams))
        step = steps[-1]
        average_gradients_([p for owner in self.owners for p in owner.parameters])
        # Those whose pass had nothing to learn from have no gradients: the same on every rank.
        active = [owner for owner in self.owners if owner.gradients]
        for owner in active:
            self.precision.unscale_(owner.optimizer)
        norms = {owner.name: torch.nn.utils.get_total_norm(owner.gradients) for owner in active}
        stop = self._read_back(step, steps, norms)
        for owner in active:
            self._update(owner, iteration, norms[owner.name])
        if active:
            self.precision.update()
        return step, stop

    def _run_micro_step(
        self, iteration: int, micro_step: int, batch: DomainBatch, streams: RandomStreams
    ) -> Step:
        step = Step(
            iteration, micro_step, batch.to(self.device), streams, self.settings.accumulation
        )
        with torch.no_grad(), self.precision.autocast():
            step.teacher = self.meta_arch.teach(step)
        for hook in self.hooks:
            hook.after_teacher(step)
        for pass_name in self.meta_arch.pass_names:
            # Dropout and DropPath draw from torch's own generator, for this rank's images alone:
            # one stream per pass and rank (docs/fidelity.md, E1).
            torch.manual_seed(streams.seed_of(f"{pass_name}, rank {rank()}"))
            with self.precision.autocast():
                losses = self.meta_arch(pass_name, step)
            if losses:
                self.precision.backward(_total(losses) / self.settings.accumulation)
            step.add_losses(losses)
        return step

    def _read_back(self, step: Step, steps: list[Step], norms: dict[str, Tensor]) -> bool:
        """Fill `step.metrics` and check that all is finite: the step's only host synchronisation.

        Losses are means over micro-steps and ranks. Whether any rank was asked to stop travels
        along, so that all ranks leave after the same step.
        """
        means = {
            name: torch.stack([item.losses[name] for item in steps]).mean() for name in step.losses
        }
        values = means | {_metric("grad_norm", name): norm for name, norm in norms.items()}
        flag = torch.tensor(float(self._stop_requested), device=self.device)
        vector = torch.stack([*(value.float() for value in values.values()), flag])
        *numbers, stop = mean_over_ranks(vector).tolist()
        found = dict(zip(values, numbers, strict=True))
        step.metrics.update(found)
        for owner in self.owners:
            lr = owner.base_lr() * owner.schedule.factor(step.iteration)
            step.metrics[_metric("lr", owner.name)] = lr
        checked = means if self.precision.may_overflow else found
        if not all(math.isfinite(found[name]) for name in checked):
            raise NonFiniteLossError(_non_finite_message(step.iteration, found))
        return stop > 0

    def _update(self, owner: Owner, iteration: int, grad_norm: Tensor) -> None:
        if owner.grad_clip > 0:
            torch.nn.utils.clip_grads_with_norm_(owner.parameters, owner.grad_clip, grad_norm)
        owner.set_learning_rate_(iteration)
        self.precision.step(owner.optimizer)


def _metric(name: str, owner: str) -> str:
    """The student's have no suffix."""
    return name if owner == STUDENT else f"{name}/{owner}"


def _total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _non_finite_message(iteration: int, found: dict[str, float]) -> str:
    values = ", ".join(f"{name}={value:g}" for name, value in found.items())
    return (
        f"iteration {iteration}: not finite: {values}; nothing was updated with it. The last "
        f"checkpoint is intact; resume from it with a smaller SOLVER.BASE_LR, with "
        f"SOLVER.GRAD_CLIP, or with SOLVER.PRECISION bf16 or fp32"
    )
