"""The teacher's moving average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from t2sda.engine.ema import EmaTeacher
from t2sda.structures import RandomStreams, Step
from tests.engine.conftest import batch_at


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
