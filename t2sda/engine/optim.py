"""Optimizers by owner: the student's as in the DAFormer family, and those that passes ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, cast

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.engine.checkpoint_validation import (
    fresh_moments,
    is_of_another_kind,
    optimizer_problems,
)
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch, StudentPass
from t2sda.meta_arch.owners import (
    Groups,
    LrSchedule,
    MakeOptimizer,
    OptimizerSettings,
    ParameterGroup,
)
from t2sda.modeling.branch import Branch
from t2sda.registry import OPTIMIZERS

STUDENT = "student"
"""Name of the first owner; the others are named as their passes."""


@OPTIMIZERS.register("adamw")
def adamw(groups: Groups, cfg: CfgNode) -> torch.optim.Optimizer:
    """AdamW."""
    return _adamw(groups, cfg.SOLVER.BETAS)


@OPTIMIZERS.register("sgd")
def sgd(groups: Groups, cfg: CfgNode) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return _sgd(groups, cfg.SOLVER.MOMENTUM)


def _adamw(groups: Groups, betas: tuple[float, float]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def _sgd(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=momentum)


SCHEMA.declare(
    "SOLVER",
    {
        "MAX_ITER": Field(40000, "optimizer steps of the whole run", unit="iterations", low=1),
        "BATCH_SIZE": Field(
            2,
            "source images, and as many target images, per step over all ranks and "
            "accumulation steps",
            low=1,
        ),
        "OPTIMIZER": Field("adamw", "of the student", choices=OPTIMIZERS),
        "BASE_LR": Field(6e-5, "learning rate of the backbone's pretrained part", low=0.0),
        "HEAD_LR_FACTOR": Field(
            10.0,
            "learning rate of heads, projector and what else no pretrained weights fill, times "
            "BASE_LR",
            low=0.0,
        ),
        "WEIGHT_DECAY": Field(0.01, "weight decay", low=0.0),
        "WARMUP_ITERS": Field(1500, "linear warm-up", unit="iterations", low=0),
        "WARMUP_RATIO": Field(
            1e-6, "share of the learning rate that the warm-up begins with", low=0.0, high=1.0
        ),
        "POWER": Field(1.0, "exponent of the polynomial decay to 0 at MAX_ITER", low=0.0),
        "GRAD_CLIP": Field(0.0, "largest norm of the student's gradient; 0: not clipped", low=0.0),
    },
)
SCHEMA.declare(
    "SOLVER",
    {"BETAS": Field((0.9, 0.999), "AdamW betas", low=0.0, high=0.999999, length=2)},
    when=lambda cfg: cfg.SOLVER.OPTIMIZER == "adamw",
    when_text="SOLVER.OPTIMIZER is adamw",
)
SCHEMA.declare(
    "SOLVER",
    {"MOMENTUM": Field(0.9, "SGD momentum", low=0.0, high=0.999999)},
    when=lambda cfg: cfg.SOLVER.OPTIMIZER == "sgd",
    when_text="SOLVER.OPTIMIZER is sgd",
)


@dataclass(frozen=True)
class Owner:
    """The student, or a pass that has parameters of its own, with its optimizer.

    Attributes:
        name: "student", or the pass's.
        optimizer: its groups have a `base_lr`, which the schedule multiplies.
        schedule: learning-rate factor of an iteration.
        grad_clip: largest norm of the gradient; 0: not clipped.
        make: what made the optimizer of its groups; None: its class does.
    """

    name: str
    optimizer: torch.optim.Optimizer
    schedule: LrSchedule
    grad_clip: float = 0.0
    make: MakeOptimizer | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that it trains."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def gradients(self) -> list[Tensor]:
        """Those there are."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's; an empty state of what had no gradient yet, so that a lost one shows."""
        state = self.optimizer.state_dict()
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        return {**state, "state": {number: state["state"].get(number, {}) for number in numbers}}

    def base_lr(self) -> float:
        """Learning rate of the first group before the schedule."""
        return self.optimizer.param_groups[0]["base_lr"]

    def set_learning_rate_(self, iteration: int) -> None:
        """Set every group to its base rate times the schedule's factor."""
        factor = self.schedule.factor(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def build_owners(cfg: CfgNode, meta_arch: MetaArch) -> list[Owner]:
    """The student and every pass that has parameters of its own, in order."""
    settings = {STUDENT: student_optimizer(cfg, meta_arch.student)}
    for name, item in meta_arch.passes.items():
        own = cast(StudentPass, item).optimizer()
        if own is not None:
            settings[name] = own
    names = {id(parameter): name for name, parameter in meta_arch.named_parameters()}
    return [build_owner(name, item, names) for name, item in settings.items()]


def student_optimizer(cfg: CfgNode, student: Branch) -> OptimizerSettings:
    """What SOLVER says.

    Groups as in the DAFormer family: heads, projector and whatever of the backbone no pretrained
    weights fill learn HEAD_LR_FACTOR times faster; layer norms of the pretrained part are not
    decayed (biases and all other norms are).
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter, pretrained, in_layer_norm in _parameters(student):
        members.setdefault((pretrained, pretrained and in_layer_norm), []).append(parameter)
    groups = [
        ParameterGroup(
            parameters,
            lr=cfg.SOLVER.BASE_LR * (1.0 if pretrained else cfg.SOLVER.HEAD_LR_FACTOR),
            weight_decay=0.0 if undecayed else cfg.SOLVER.WEIGHT_DECAY,
        )
        for (pretrained, undecayed), parameters in members.items()
    ]
    return OptimizerSettings(
        groups,
        LrSchedule.of_student(cfg),
        kind=partial(OPTIMIZERS.get(cfg.SOLVER.OPTIMIZER), cfg=cfg),
        grad_clip=cfg.SOLVER.GRAD_CLIP,
    )


def build_owner(
    name: str, settings: OptimizerSettings, names: Mapping[int, str] | None = None
) -> Owner:
    """An owner with a fresh optimizer.

    Args:
        name: see `Owner`.
        settings: of the optimizer.
        names: of parameters by `id`, for messages and to identify them in a checkpoint.
    """
    names, number = names or {}, count()
    groups = [
        {
            "params": [(names.get(id(p), f"{name}.{next(number)}"), p) for p in group.parameters],
            "lr": group.lr,
            "base_lr": group.lr,
            "weight_decay": group.weight_decay,
        }
        for group in settings.groups
    ]
    make = _maker(settings)
    optimizer = make(groups)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(
            f"the optimizer of {name} is a {type(optimizer).__name__}; what is registered must "
            f"return a torch.optim.Optimizer"
        )
    return Owner(name, optimizer, settings.schedule, settings.grad_clip, make)


def _maker(settings: OptimizerSettings) -> MakeOptimizer:
    if not isinstance(settings.kind, str):
        return settings.kind
    if settings.kind == "sgd":
        return partial(_sgd, momentum=settings.momentum)
    return partial(_adamw, betas=settings.betas)


def check_every_parameter_is_trained(meta_arch: MetaArch, owners: Sequence[Owner]) -> None:
    """Raise UserError for a trainable parameter that not exactly one owner trains."""
    trained = Counter(id(parameter) for owner in owners for parameter in owner.parameters)
    names = dict(meta_arch.named_parameters())
    idle = [name for name, p in names.items() if p.requires_grad and not trained[id(p)]]
    if idle:
        raise UserError(
            f"no optimizer trains {_listed(idle)}; a pass names what it trains in `optimizer`, and "
            f"what is not to learn needs requires_grad_(False)"
        )
    shared = [name for name, p in names.items() if trained[id(p)] > 1]
    if shared:
        raise UserError(f"more than one optimizer trains {_listed(shared)}; leave it to one pass")


def load_optimizers_(
    owners: Sequence[Owner],
    states: Mapping[str, dict[str, Any]],
    iteration: int,
    num_skipped: int = 0,
) -> None:
    """Load the moments of a checkpoint; rates, decay and betas stay those of the configuration.

    Args:
        owners: of this run, before its first step.
        states: `Owner.state_dict` by owner.
        iteration: steps done, trial steps of hooks included.
        num_skipped: how many of them an optimizer may have skipped.

    Raises:
        UserError: if the checkpoint has other owners, another kind of optimizer, or moments that
            are not those of this run's parameters; nothing is loaded then.
    """
    if not states.get(STUDENT, True):
        raise UserError("it has no optimizer, as imported weights; start from it with --weights")
    if states.keys() != {owner.name for owner in owners}:
        raise UserError(
            f"the checkpoint has optimizers of {', '.join(states)}, this run of "
            f"{', '.join(owner.name for owner in owners)}; resume with the same passes"
        )
    for owner in owners:
        _check_optimizer(owner, states[owner.name], iteration, num_skipped)
    for owner in owners:
        groups = owner.optimizer.state_dict()["param_groups"]
        moments = fresh_moments(owner.optimizer, states[owner.name])
        owner.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _check_optimizer(owner: Owner, state: dict[str, Any], iteration: int, num_skipped: int) -> None:
    """Torch itself takes moments of any shape and type, and a fused step then writes anywhere."""
    kinds = [
        any("betas" in group for group in groups)
        for groups in (owner.optimizer.param_groups, state["param_groups"])
    ]
    if kinds[0] != kinds[1] or is_of_another_kind(owner.optimizer, state, owner.make):
        raise UserError(
            f"the checkpoint is of another optimizer than {type(owner.optimizer).__name__}; resume "
            f"with the same SOLVER.OPTIMIZER"
        )
    # A pass may have nothing to learn from at first; the student always has.
    skipped = num_skipped if owner.name == STUDENT else iteration
    problems = optimizer_problems(owner.optimizer, state, iteration, skipped, owner.make)
    if problems:
        raise UserError(
            f"a damaged or edited checkpoint, optimizer of {owner.name}: {'; '.join(problems)}; "
            f"use an older one"
        )


def _parameters(student: Branch) -> Iterator[tuple[nn.Parameter, bool, bool]]:
    """(parameter, whether of the backbone's pretrained part, whether of a layer norm)."""
    backbone = student.model.backbone
    fresh = {id(p) for module in backbone.fresh_modules() for p in module.parameters()}
    pretrained = {id(p) for p in backbone.parameters()} - fresh
    for module in student.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                in_layer_norm = isinstance(module, nn.LayerNorm)
                yield parameter, id(parameter) in pretrained, in_layer_norm


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
