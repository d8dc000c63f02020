"""The training step: order, gradients, randomness, and how it stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch

from t2sda.engine.hooks import Hook, Stage
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import NonFiniteLossError, Trainer
from t2sda.structures import Step
from tests.engine.conftest import batch_at, batches

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
