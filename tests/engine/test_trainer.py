"""The training step: order, gradients, randomness, and how it stops."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from t2sda.engine.hooks import Hook, Stage
from t2sda.engine.optim import build_owner
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import NonFiniteLossError, Trainer, TrainerSettings
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch, StudentPass
from t2sda.meta_arch.owners import LrSchedule, OptimizerSettings, ParameterGroup
from t2sda.modeling.branch import Branch
from t2sda.structures import Step
from tests.distributed import on_two_ranks
from tests.engine.conftest import CPU, PixelModel, batch_at, batches

MakeTrainer = Callable[..., Trainer]


def weights(trainer: Trainer) -> torch.Tensor:
    return trainer.meta_arch.student.model.classifier.weight.detach().clone()  # type: ignore[union-attr]


class Diary(Hook):
    """Writes down when it was called."""

    stage: ClassVar[Stage] = Stage.METRICS

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.lines = lines

    def before_train(self, first_iteration: int) -> None:
        self.lines.append(f"{self.name} before {first_iteration}")

    def after_teacher(self, step: Step) -> None:
        self.lines.append(f"{self.name} teacher {step.iteration}.{step.micro_step}")

    def after_step(self, step: Step) -> None:
        self.lines.append(f"{self.name} step {step.iteration} {sorted(step.losses)}")

    def after_train(self, next_iteration: int) -> None:
        self.lines.append(f"{self.name} after {next_iteration}")


class Steps(Hook):
    """Keeps the records."""

    def __init__(self) -> None:
        self.seen: list[Step] = []

    def after_step(self, step: Step) -> None:
        self.seen.append(step)


class EarlyDiary(Diary):
    """Runs with what changes the model."""

    stage = Stage.MODEL


def test_gradients_of_all_passes_add_up(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({"one": 1.0, "two": 2.0})
    seen: list[torch.Tensor] = []
    trainer.owners[0].optimizer.register_step_pre_hook(
        lambda *_: seen.append(trainer.meta_arch.student.model.classifier.bias.grad.clone())  # type: ignore[union-attr]
    )
    trainer.run_step(0, batches())
    # The mean over 2 logits of each pixel: a bias has the gradient 1/2 in pass one, 1 in pass two.
    torch.testing.assert_close(seen[0], torch.tensor([1.5, 1.5]))


def test_hooks_run_at_their_moments_by_stage(make_trainer: MakeTrainer) -> None:
    lines: list[str] = []
    trainer = make_trainer(hooks=[Diary("late", lines), EarlyDiary("early", lines)], max_iter=1)
    trainer.run(batches())
    moments = ["before 0", "teacher 0.0", "step 0 ['loss_one', 'loss_two']", "after 1"]
    assert lines == [f"{name} {moment}" for moment in moments for name in ("early", "late")]


def test_a_run_continued_half_way_is_bit_identical(make_trainer: MakeTrainer) -> None:
    whole, half, rest = make_trainer(), make_trainer(max_iter=3), make_trainer()
    whole.run(batches())
    half.run(batches())
    rest.meta_arch.load_state_dict(half.meta_arch.state_dict())
    rest.owners[0].optimizer.load_state_dict(half.owners[0].optimizer.state_dict())
    torch.manual_seed(1234)  # what torch's generator did before must not matter
    rest.run(batches(first=3), first_iteration=3)
    assert torch.equal(weights(whole), weights(rest))


def test_accumulation_takes_the_mean_of_micro_steps(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({"one": 1.0}, accumulation=2)
    trainer.meta_arch.student.model.eval()
    grads: list[torch.Tensor] = []
    model = trainer.meta_arch.student.model
    trainer.owners[0].optimizer.register_step_pre_hook(
        lambda *_: grads.append(model.classifier.bias.grad.clone())  # type: ignore[union-attr]
    )
    trainer.run_step(0, batches())
    torch.testing.assert_close(grads[0], torch.tensor([0.5, 0.5]))


def test_clipping_limits_the_norm(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({"one": 1000.0}, grad_clip=0.25)
    norms: list[float] = []
    trainer.owners[0].optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(torch.nn.utils.get_total_norm(trainer.owners[0].gradients)))
    )
    trainer.run_step(0, batches())
    assert norms[0] == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_every_loss_by_name(
    make_trainer: MakeTrainer, bad: float
) -> None:
    trainer = make_trainer({"good": 1.0, "bad": bad})
    before = weights(trainer)
    with pytest.raises(NonFiniteLossError, match=r"iteration 0: .*loss_good=-?\d.*loss_bad="):
        trainer.run(batches())
    assert torch.equal(weights(trainer), before)


def test_a_gradient_that_is_not_finite_stops_too(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({"one": 1.0})
    weight = trainer.meta_arch.student.model.classifier.weight  # type: ignore[union-attr]
    weight.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[union-attr,operator]
    with pytest.raises(NonFiniteLossError, match="grad_norm=nan"):
        trainer.run_step(0, batches())


def test_asked_to_stop_it_finishes_the_step(make_trainer: MakeTrainer) -> None:
    lines: list[str] = []
    trainer = make_trainer(hooks=[Diary("diary", lines)])
    trainer.request_stop()
    assert trainer.run(batches()) == 1
    assert lines[-1] == "diary after 1"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_is_used_and_close(make_trainer: MakeTrainer, precision: str) -> None:
    exact, reduced = make_trainer({"one": 0.1}), make_trainer({"one": 0.1}, precision=precision)
    if precision == "fp16":  # small enough from the start: no step is skipped
        reduced.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    dtypes: set[torch.dtype] = set()
    reduced.meta_arch.student.model.classifier.register_forward_hook(  # type: ignore[union-attr,operator]
        lambda _module, _inputs, output: dtypes.add(output.dtype)
    )
    for trainer in (exact, reduced):
        trainer.run(batches())
    assert dtypes == {torch.bfloat16 if precision == "bf16" else torch.float16}
    torch.testing.assert_close(weights(reduced), weights(exact), rtol=0.05, atol=0.05)


def test_float16_survives_an_overflow_by_skipping_the_step(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({"one": 1e4}, precision="fp16")  # times the scale of 65536: overflows
    before, scale = weights(trainer), trainer.precision.scaler.get_scale()
    trainer.run_step(0, iter([batch_at(0)]))
    assert torch.equal(weights(trainer), before)
    assert trainer.precision.scaler.get_scale() == scale / 2


def test_precision_may_change_at_a_resume() -> None:
    exact, scaled = (Precision(name, torch.device("cpu")) for name in ("fp32", "fp16"))
    scaled.load_scale(exact.scaler.state_dict())
    saved = {**scaled.scaler.state_dict(), "scale": 128.0}
    exact.load_scale(saved)
    scaled.load_scale(saved)
    assert scaled.scaler.get_scale() == 128


class OwnedPass(StudentPass):
    """A parameter of its own, and a loss on it alone: its gradient is `factor`."""

    def __init__(self, factor: float, grad_clip: float = 0.0, every: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.factor = factor
        self.grad_clip = grad_clip
        self.every = every

    def optimizer(self) -> OptimizerSettings:
        groups = [ParameterGroup([self.weight], lr=0.5)]
        return OptimizerSettings(
            groups, LrSchedule(10), kind="sgd", momentum=0.0, grad_clip=self.grad_clip
        )

    def forward(self, student: Branch, step: Step) -> dict[str, torch.Tensor]:
        logits = 1e-4 * student.model(step.batch.source_image).mean()
        own = self.factor * self.weight.sum() if step.iteration % self.every == 0 else 0.0
        return {"loss_owned": logits + own}


def test_every_owner_has_its_own_norm_clip_and_schedule(make_trainer: MakeTrainer) -> None:
    owned = OwnedPass(3.0, grad_clip=1.0)
    trainer = make_trainer({"one": 1.0}, passes={"owned": owned}, hooks=[steps := Steps()])
    trainer.run_step(5, batches())
    # SGD at half of its rate of 0.5, by the gradient 3 clipped to 1; the student is not clipped.
    torch.testing.assert_close(owned.weight.detach(), torch.tensor([0.75]), atol=1e-5, rtol=0)
    metrics = steps.seen[0].metrics
    assert metrics["grad_norm/owned"] == pytest.approx(3.0)
    assert metrics["lr/owned"] == pytest.approx(0.25)
    assert metrics["lr"] == pytest.approx(0.095)
    assert metrics["grad_norm"] != metrics["grad_norm/owned"]


def test_a_gradient_of_another_owner_that_is_not_finite_stops_all(
    make_trainer: MakeTrainer,
) -> None:
    owned = OwnedPass(1.0)
    owned.weight.register_hook(lambda gradient: gradient * float("inf"))
    trainer = make_trainer({"one": 1.0}, passes={"owned": owned})
    before = weights(trainer)
    with pytest.raises(NonFiniteLossError, match="grad_norm/owned=inf"):
        trainer.run_step(0, batches())
    assert torch.equal(weights(trainer), before)


def test_owners_share_one_loss_scale(make_trainer: MakeTrainer) -> None:
    # The pass's gradient overflows: its step is left out, the student's is not.
    owned = OwnedPass(1.0)
    trainer = make_trainer({"one": 1e-4}, passes={"owned": owned}, precision="fp16")
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights(trainer)
    owned.weight.register_hook(lambda gradient: gradient * float("inf"))
    trainer.run_step(0, batches())
    assert owned.weight.item() == 1
    assert not torch.equal(weights(trainer), before)
    assert trainer.precision.scaler.get_scale() == 512


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_owner_without_a_gradient_waits(make_trainer: MakeTrainer, precision: str) -> None:
    owned = OwnedPass(1.0, every=2)
    trainer = make_trainer({"one": 1e-4}, passes={"owned": owned}, precision=precision)
    trainer.run_step(0, batches())
    after = owned.weight.item()
    assert after == pytest.approx(0.5)
    trainer.run_step(1, batches())
    assert owned.weight.item() == after


def test_a_trainer_refuses_parameters_that_nobody_trains(make_trainer: MakeTrainer) -> None:
    idle = OwnedPass(1.0)
    idle.forgotten = nn.Parameter(torch.ones(1))
    with pytest.raises(UserError, match=r"no optimizer trains passes\.owned\.forgotten"):
        make_trainer(passes={"owned": idle})


def dropout_masks(_: int = 0) -> list[torch.Tensor]:
    """What dropout left of 4096 ones in two passes."""
    masks: list[torch.Tensor] = []

    class Dropping(StudentPass):
        def forward(self, student: Branch, step: Step) -> dict[str, torch.Tensor]:
            masks.append(nn.functional.dropout(torch.ones(4096)) > 0)
            shared.append(torch.rand(8, generator=step.streams.generator("shared")))
            return {f"loss_{self.name}": student.model(step.batch.source_image).mean()}

    shared: list[torch.Tensor] = []
    meta_arch = MetaArch(Branch(PixelModel()), {"one": Dropping(), "two": Dropping()})  # type: ignore[arg-type]
    groups = [ParameterGroup(list(meta_arch.parameters()), lr=0.1)]
    owner = build_owner("student", OptimizerSettings(groups, LrSchedule(10)))
    settings = TrainerSettings(max_iter=1, accumulation=1, seed=0)
    Trainer(meta_arch, [owner], Precision("fp32", CPU), [], settings, CPU).run(batches())
    return [*masks, torch.stack(shared)]


def test_dropout_draws_apart_on_every_rank_and_shared_streams_alike(tmp_path: Path) -> None:
    first, second = on_two_ranks(dropout_masks, tmp_path)
    assert torch.equal(first[2], second[2])
    masks = [*first[:2], *second[:2]]  # of both passes on both ranks
    for one, other in itertools.combinations(masks, 2):
        # Independent masks agree in half of 4096 places, with a standard deviation of 0.008.
        assert (one == other).float().mean().item() == pytest.approx(0.5, abs=0.04)
    # A single process is the first rank.
    assert all(map(torch.equal, first, dropout_masks()))


class NormOfTheMean(StudentPass):
    """A BatchNorm of its own over one vector an image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2, affine=False)

    def forward(self, student: Branch, step: Step) -> dict[str, torch.Tensor]:
        return {"loss": self.norm(student.model(step.batch.source_image).mean((2, 3))).mean()}


def test_a_norm_over_a_single_value_ends_the_run_with_its_name(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(passes={"normed": NormOfTheMean()})
    before = weights(trainer)
    message = r"passes\.normed\.norm \(BatchNorm1d\) has a single value .*of 4x4 pixels"
    with pytest.raises(UserError, match=message):
        trainer.run_step(0, iter([batch_at(0, size=1)]))
    assert torch.equal(weights(trainer), before)
    trainer.run_step(0, iter([batch_at(0, size=2)]))
    assert not torch.equal(weights(trainer), before)
