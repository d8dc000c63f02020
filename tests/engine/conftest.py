"""A meta-architecture small enough to step in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2sda.engine.hooks import Hook
from t2sda.engine.optim import build_owner
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.meta_arch.base import MetaArch, StudentPass
from t2sda.meta_arch.owners import LrSchedule, OptimizerSettings, ParameterGroup
from t2sda.modeling.branch import Branch
from t2sda.structures import DomainBatch, Step

CPU = torch.device("cpu")


class PixelModel(nn.Module):
    """One 1x1 convolution behind dropout: it draws random numbers, as big networks do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(nn.functional.dropout(image.float() / 255, 0.5, self.training))


class MeanLogitPass(StudentPass):
    """The mean logit, times what the test asks for."""

    def __init__(self, name: str, factor: float) -> None:
        super().__init__()
        self.loss_name = f"loss_{name}"
        self.factor = factor

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        return {self.loss_name: self.factor * student.model(step.batch.source_image).mean()}


def batch_at(iteration: int, size: int = 2) -> DomainBatch:
    """The batch of an iteration."""
    generator = torch.Generator().manual_seed(iteration)
    image = torch.randint(0, 256, (size, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return DomainBatch(image, torch.zeros(size, 4, 4, dtype=torch.int64))


def batches(first: int = 0, count: int = 100) -> Iterator[DomainBatch]:
    """Batches of iterations in order."""
    return (batch_at(iteration) for iteration in range(first, count))


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    """Builds a trainer of `PixelModel`; keyword arguments replace the usual."""

    def make(
        factors: dict[str, float] | None = None,
        hooks: Sequence[Hook] = (),
        precision: str = "fp32",
        grad_clip: float = 0.0,
        passes: dict[str, StudentPass] | None = None,
        **settings: Any,
    ) -> Trainer:
        listed: dict[str, StudentPass] = {
            name: MeanLogitPass(name, factor)
            for name, factor in (factors or {"one": 1.0, "two": -0.5}).items()
        }
        listed |= passes or {}
        meta_arch = MetaArch(Branch(PixelModel()), listed)  # type: ignore[arg-type]
        groups = [ParameterGroup(list(meta_arch.student.parameters()), lr=0.1, weight_decay=0.01)]
        owned = {"student": OptimizerSettings(groups, LrSchedule(100), grad_clip=grad_clip)}
        owned |= {name: own for name, item in listed.items() if (own := item.optimizer())}
        usual = {"max_iter": 6, "accumulation": 1, "seed": 0}
        return Trainer(
            meta_arch,
            [build_owner(name, own) for name, own in owned.items()],
            Precision(precision, CPU),
            hooks,
            TrainerSettings(**(usual | settings)),
            CPU,
        )

    return make
