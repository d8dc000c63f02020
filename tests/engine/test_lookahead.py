"""FST's look-ahead teacher beside a loop written from the paper, and laws."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.config import ConfigError, load_config
from t2sda.engine.ema import EmaTeacher
from t2sda.engine.hooks import Hook
from t2sda.engine.lookahead import MOMENTS, FutureTeacher, steps_per_iteration
from t2sda.engine.optim import build_owner
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.meta_arch.base import MetaArch, StudentPass
from t2sda.meta_arch.owners import LrSchedule, OptimizerSettings, ParameterGroup
from t2sda.modeling.branch import Branch
from t2sda.structures import Step
from t2sda.training.plan import plan_text
from tests.engine.conftest import CPU, batch_at, batches

STEPS, MOMENTUM, LR, DECAY = 2, 0.6, 0.1, 0.01
FST = ["META_ARCH.NAME", "SelfTraining", "DATASETS.TARGET", "streets_hazy_train"]


class Pixels(nn.Module):
    """One 1x1 convolution and BatchNorm, which would leave a bias no gradient but rounding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2)).double()

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image.double() / 255)


def loss_of(student: nn.Module, teacher: nn.Module, image: Tensor) -> Tensor:
    """The student follows the teacher, and something else."""
    with torch.no_grad():
        expected = teacher(image)
    found = student(image)
    return (found - expected).square().mean() + (found[:, 0] - found[:, 1] ** 2).mean()


class FollowingPass(StudentPass):
    """That loss."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "teacher", teacher)  # not one of its modules

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        return {"loss_following": loss_of(student.model, self.teacher, step.batch.source_image)}


def trainer_with(student: Pixels, teacher: Pixels, hook: Hook) -> Trainer:
    meta_arch = MetaArch(Branch(student), {"following": FollowingPass(teacher)})  # type: ignore[arg-type]
    group = ParameterGroup(list(student.parameters()), lr=LR, weight_decay=DECAY)
    owner = build_owner("student", OptimizerSettings([group], LrSchedule(100)))
    settings = TrainerSettings(max_iter=3, accumulation=1, seed=0)
    return Trainer(meta_arch, [owner], Precision("fp32", CPU), [hook], settings, CPU)


def by_the_paper(moments: str) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """Student, teacher and optimizer after three iterations, in a loop of its own."""
    student, teacher = Pixels(), Pixels()
    # Fused, as the trainer's: the other kind rounds the powers of beta differently (1e-7).
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, weight_decay=DECAY, fused=True)
    updates = 0

    def step(iteration: int) -> None:
        nonlocal updates
        optimizer.param_groups[0]["lr"] = LR * (1 - iteration / 100)
        optimizer.zero_grad()
        loss_of(student, teacher, batch_at(iteration).source_image).backward()
        optimizer.step()

    def follow() -> None:
        nonlocal updates
        eta = min(1 - 1 / (updates + 2), MOMENTUM)
        updates += 1
        for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
            own.data = eta * own.data + (1 - eta) * other.data
        for own, other in zip(teacher.buffers(), student.buffers(), strict=True):
            own.copy_(other)

    for iteration in range(3):
        weights = [parameter.detach().clone() for parameter in student.parameters()]
        before = copy.deepcopy(optimizer.state_dict())
        for _ in range(STEPS):
            step(iteration)
            follow()
        for parameter, kept in zip(student.parameters(), weights, strict=True):
            parameter.data.copy_(kept)
        if moments == "restored":
            optimizer.load_state_dict(before)
        step(iteration)
        follow()
    return student, teacher, optimizer


@pytest.mark.parametrize("moments", MOMENTS)
def test_student_and_teacher_are_those_of_the_papers_loop(moments: str) -> None:
    student, teacher = Pixels(), Pixels()
    trainer = trainer_with(
        student, teacher, FutureTeacher(student, teacher, MOMENTUM, STEPS, moments)
    )
    trainer.run(batches())
    expected = by_the_paper(moments)
    for own, other in zip((student, teacher), expected[:2], strict=True):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(own.state_dict()[name], value, rtol=1e-9, atol=1e-12)
    own_steps = [state["step"].item() for state in trainer.owners[0].optimizer.state.values()]
    assert set(own_steps) == {9 if moments == "kept" else 3}


def test_without_trial_steps_it_is_the_plain_teacher() -> None:
    found = []
    for kind in (FutureTeacher, EmaTeacher):
        student, teacher = Pixels(), Pixels()
        options = {"steps": 0} if kind is FutureTeacher else {}
        trainer = trainer_with(student, teacher, kind(student, teacher, MOMENTUM, **options))
        trainer.run(batches())
        found.append([*student.state_dict().values(), *teacher.state_dict().values()])
    for own, other in zip(*found, strict=True):
        assert torch.equal(own, other)


def test_trial_steps_draw_numbers_of_their_own_and_the_step_draws_what_it_would() -> None:
    class Drawing(FollowingPass):
        def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
            drawn.append(step.streams.seed_of("anything"))
            return super().forward(student, step)

    student, teacher = Pixels(), Pixels()
    seen: dict[int, list[int]] = {}
    for steps in (0, 2):
        drawn: list[int] = []
        trainer = trainer_with(student, teacher, FutureTeacher(student, teacher, MOMENTUM, steps))
        trainer.meta_arch.passes["following"] = Drawing(teacher)
        trainer.meta_arch.passes["following"].name = "following"
        trainer.run_step(0, batches())
        seen[steps] = drawn
    assert len(set(seen[2])) == 3
    assert seen[2][-1] == seen[0][0]


def test_the_plan_says_what_a_step_costs() -> None:
    plain = load_config(None, [*FST, "HOOKS.NAMES", "[EmaTeacher]"])
    ahead = load_config(None, [*FST, "HOOKS.NAMES", "[FutureTeacher]"])
    assert (steps_per_iteration(plain), steps_per_iteration(ahead)) == (1, 4)
    assert "6 images through networks a step: student 4, teacher 2" in plan_text(plain)
    assert "24 images through networks a step: 4 steps, of which 3 are undone" in plan_text(ahead)


def test_its_settings_need_it_and_one_teacher_is_enough() -> None:
    with pytest.raises(ConfigError, match="LOOK_AHEAD.STEPS is set but has no effect"):
        load_config(None, [*FST, "HOOKS.NAMES", "[EmaTeacher]", "LOOK_AHEAD.STEPS", "2"])
    with pytest.raises(ConfigError, match=r"HOOKS\.NAMES: EmaTeacher, FutureTeacher .* list one"):
        load_config(None, [*FST, "HOOKS.NAMES", "[EmaTeacher, FutureTeacher]"])
