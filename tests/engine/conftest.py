"""A meta-architecture small enough to step in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2sda.engine.hooks import Hook
from t2sda.engine.optim import LrSchedule
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.meta_arch.base import MetaArch, StudentPass
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
        **settings: Any,
    ) -> Trainer:
        passes = {
            name: MeanLogitPass(name, factor)
            for name, factor in (factors or {"one": 1.0, "two": -0.5}).items()
        }
        meta_arch = MetaArch(Branch(PixelModel()), passes)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(
            [{"params": list(meta_arch.student.parameters()), "base_lr": 0.1}], lr=0.1
        )
        usual = {"max_iter": 6, "accumulation": 1, "grad_clip": 0.0, "seed": 0}
        return Trainer(
            meta_arch,
            optimizer,
            LrSchedule(max_iter=100, warmup_iters=0, warmup_ratio=1.0, power=1.0),
            Precision(precision, CPU),
            hooks,
            TrainerSettings(**(usual | settings)),
            CPU,
        )

    return make
