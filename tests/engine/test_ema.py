"""The teacher's moving average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.ema import EmaTeacher
from t2sda.engine.hooks import RunObjects
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import RandomStreams, Step
from tests.engine.conftest import batch_at
from tests.meta_arch.conftest import config_of


class Point(nn.Module):
    """One parameter and one buffer."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("running_mean", torch.tensor([value]))
        self.register_buffer("count", torch.tensor(int(value)))


def step_at(iteration: int) -> Step:
    return Step(iteration, 0, batch_at(0), RandomStreams(0, iteration, 0))


@pytest.mark.parametrize(("iteration", "momentum"), [(0, 1 / 2), (1, 2 / 3), (2, 3 / 4), (98, 0.9)])
def test_momentum_ramps_up_to_its_value(iteration: int, momentum: float) -> None:
    student, teacher = Point(1.0), Point(0.0)
    EmaTeacher(student, teacher, ema_momentum=0.9).after_step(step_at(iteration))
    assert teacher.weight.item() == pytest.approx(1 - momentum)


def test_buffers_are_copied() -> None:
    student, teacher = Point(3.0), Point(0.0)
    EmaTeacher(student, teacher, ema_momentum=0.999).after_step(step_at(5000))
    assert teacher.running_mean.item() == 3
    assert teacher.count.item() == 3


def test_the_teacher_begins_as_the_student_but_not_when_resumed() -> None:
    student = Point(3.0)
    fresh, resumed = Point(0.0), Point(1.0)
    EmaTeacher(student, fresh, 0.9).before_train(0)
    EmaTeacher(student, resumed, 0.9).before_train(10)
    assert fresh.weight.item() == 3
    assert resumed.weight.item() == 1


@pytest.mark.parametrize(("max_iter", "warns"), [("299", True), ("300", False)])
def test_a_run_too_short_for_its_momentum_is_warned(
    max_iter: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ("EMA.MOMENTUM", "0.99", "SOLVER.MAX_ITER", max_iter, "SOLVER.WARMUP_ITERS", "0")
    cfg = config_of("SelfTraining", *settings)
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19)
    EmaTeacher.from_config(cfg, RunObjects(meta_arch, Path()))
    found = "needs about 300 iterations" in caplog.text and "SOLVER.MAX_ITER is 299" in caplog.text
    assert found is warns
