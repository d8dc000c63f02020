"""Optimizer groups and the learning-rate schedule of the DAFormer family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from t2sda.config import SCHEMA, Field
from t2sda.engine.checkpoint_validation import fresh_moments
from t2sda.modeling.branch import Branch

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
        "BASE_LR": Field(6e-5, "AdamW learning rate of the backbone", low=0.0),
        "HEAD_LR_FACTOR": Field(
            10.0, "learning rate of head and projector, times BASE_LR", low=0.0
        ),
        "WEIGHT_DECAY": Field(0.01, "AdamW weight decay", low=0.0),
        "BETAS": Field((0.9, 0.999), "AdamW betas", low=0.0, high=0.999999, length=2),
        "WARMUP_ITERS": Field(1500, "linear warm-up", unit="iterations", low=0),
        "WARMUP_RATIO": Field(
            1e-6, "share of the learning rate that the warm-up begins with", low=0.0, high=1.0
        ),
        "POWER": Field(1.0, "exponent of the polynomial decay to 0 at MAX_ITER", low=0.0),
    },
)


@dataclass(frozen=True)
class LrSchedule:
    """Polynomial decay with linear warm-up; a pure function of the iteration, so nothing to save.

    The warm-up multiplies the decayed value, as mmcv's linear warm-up does.
    """

    max_iter: int
    warmup_iters: int
    warmup_ratio: float
    power: float

    @classmethod
    def from_config(cls, cfg: CfgNode) -> LrSchedule:
        """Read SOLVER."""
        return cls(
            max_iter=cfg.SOLVER.MAX_ITER,
            warmup_iters=cfg.SOLVER.WARMUP_ITERS,
            warmup_ratio=cfg.SOLVER.WARMUP_RATIO,
            power=cfg.SOLVER.POWER,
        )

    def factor(self, iteration: int) -> float:
        """Factor of the base learning rate at `iteration`, counted from 0."""
        decay = (1 - iteration / self.max_iter) ** self.power
        if iteration >= self.warmup_iters:
            return decay
        return decay * (1 - (1 - iteration / self.warmup_iters) * (1 - self.warmup_ratio))


def build_optimizer(cfg: CfgNode, student: Branch) -> torch.optim.AdamW:
    """AdamW over the student.

    Groups as in the DAFormer family: head and projector learn HEAD_LR_FACTOR times faster, and
    layer norms of the backbone are not decayed (biases and all other norms are). `base_lr` of a
    group is the rate that the schedule multiplies.
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter, in_backbone, in_layer_norm in _parameters(student):
        members.setdefault((in_backbone, in_backbone and in_layer_norm), []).append(parameter)
    groups = []
    for (in_backbone, undecayed), parameters in members.items():
        lr = cfg.SOLVER.BASE_LR * (1.0 if in_backbone else cfg.SOLVER.HEAD_LR_FACTOR)
        decay = 0.0 if undecayed else cfg.SOLVER.WEIGHT_DECAY
        groups.append({"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=cfg.SOLVER.BETAS, fused=True)


def load_optimizer_(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the moments of a checkpoint; rates, decay and betas stay those of the configuration.

    They must have passed `optimizer_problems`: torch takes moments of any shape and type.
    """
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": fresh_moments(optimizer, state), "param_groups": groups})


def set_learning_rate_(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _parameters(student: Branch) -> Iterator[tuple[nn.Parameter, bool, bool]]:
    """(parameter, whether in the backbone, whether of a layer norm), trainable ones only."""
    for name, module in student.named_modules():
        in_backbone = name.startswith("model.backbone")
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                yield parameter, in_backbone, isinstance(module, nn.LayerNorm)
