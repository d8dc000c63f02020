"""What a student of plain transformers sees in place of hidden tokens; it learns with the student.

It belongs to the pass that hides tokens: what ships has no use for it.
"""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from fvcore.common.config import CfgNode
from torch import nn

from t2sda.errors import UserError
from t2sda.meta_arch.owners import LrSchedule, MakeOptimizer, OptimizerSettings, ParameterGroup
from t2sda.registry import OPTIMIZERS
from t2sda.structures import FeatureSpec


class MaskToken(nn.Module):
    """One vector for every hidden token, 0 at first, as that of DINOv2 began.

    timm's files of DINOv2 leave out the one that its pretraining learnt.

    Args:
        spec: of the backbone's tokens.
        lr: before the schedule.
        weight_decay: of the vector.
        schedule: factor of the rate.
        kind: makes the optimizer.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        lr: float,
        weight_decay: float,
        schedule: LrSchedule,
        kind: MakeOptimizer,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.lr, self.weight_decay = lr, weight_decay
        self.schedule, self.kind = schedule, kind
        self.token = nn.Parameter(torch.zeros(spec.channels))

    @classmethod
    def from_config(cls, cfg: CfgNode, spec: FeatureSpec | None) -> Self:
        """Read SOLVER: it learns as the backbone does.

        Raises:
            UserError: if the backbone has no tokens that can be hidden.
        """
        if spec is None:
            raise UserError(
                f"MASKED.UNIT: 'tokens', but those of '{cfg.MODEL.BACKBONE.TIMM_NAME}' cannot be "
                f"hidden; take a network such as vit_base_patch14_dinov2.lvd142m, or set it to "
                f"blocks"
            )
        return cls(
            spec,
            cfg.SOLVER.BASE_LR,
            cfg.SOLVER.WEIGHT_DECAY,
            LrSchedule.of_student(cfg),
            partial(OPTIMIZERS.get(cfg.SOLVER.OPTIMIZER), cfg=cfg),
        )

    def optimizer(self) -> OptimizerSettings:
        """One group of one parameter."""
        group = ParameterGroup([self.token], self.lr, self.weight_decay)
        return OptimizerSettings([group], self.schedule, self.kind)
