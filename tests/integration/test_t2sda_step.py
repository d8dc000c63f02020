"""Whole steps of T2S-DA: what it is without its loss, and what it does with bad batches."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from t2sda.engine.trainer import NonFiniteLossError, Trainer
from t2sda.structures import DomainBatch, Step
from tests.meta_arch.conftest import config_of
from tests.training import SIZE, noise_batch, trainer_of

WHOLE = ["HOOKS.NAMES", "[EmaTeacher, DynamicReweighting]"]


def student_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of the parameters."""
    return {
        name: parameter.detach().clone()
        for name, parameter in trainer.meta_arch.student.named_parameters()
    }


def metrics_of(trainer: Trainer, batch: DomainBatch, iteration: int = 0) -> dict[str, float]:
    """Losses of one step."""
    seen: list[Step] = []
    hook = copy.copy(trainer.hooks[0])
    hook.after_step = seen.append  # type: ignore[method-assign]
    trainer.hooks.append(hook)
    trainer.run_step(iteration, iter([batch]))
    trainer.hooks.remove(hook)
    return seen[0].metrics


def test_without_pull_pass_and_weights_it_is_the_baseline_bit_for_bit() -> None:
    passes = ["META_ARCH.PASSES", "[source, mixed]", "TRANSLATION.NAME", ""]
    baseline = trainer_of(config_of("SelfTraining"))
    without = trainer_of(config_of("T2SDA", *passes, "T2SDA.NUM_NEGATIVES", "1024"))
    for iteration in range(3):
        batch = noise_batch(2, seed=iteration)
        assert metrics_of(baseline, batch, iteration) == metrics_of(without, batch, iteration)
    for branch in ("student", "teacher"):
        ours = getattr(without.meta_arch, branch).model.state_dict()
        for name, expected in getattr(baseline.meta_arch, branch).model.state_dict().items():
            assert torch.equal(ours[name], expected), name


def test_a_batch_without_labels_trains_on_the_target_alone() -> None:
    trainer = trainer_of(config_of("T2SDA", *WHOLE))
    unlabelled = torch.full((2, *SIZE), 255)
    before = student_of(trainer)
    losses = metrics_of(trainer, dataclasses.replace(noise_batch(2), source_label=unlabelled))
    assert losses["loss_source"] == losses["loss_pull"] == 0
    assert all(math.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(value).all() for value in student_of(trainer).values())
    assert before.keys() == student_of(trainer).keys()


@pytest.mark.parametrize("hooks", [WHOLE, [*WHOLE, "REWEIGHTING.APPLY_TO", "target"]])
def test_a_target_without_a_confident_pixel_leaves_pasted_pixels_and_pull(hooks: list[str]) -> None:
    # An untrained teacher reaches 0.968 nowhere: q = 0, and half of the pixels are unreliable.
    trainer = trainer_of(config_of("T2SDA", *hooks))
    losses = metrics_of(trainer, noise_batch(2))
    assert losses["loss_pull"] > 0
    assert losses["loss_mixed"] > 0
    assert all(math.isfinite(value) for value in losses.values())


def test_a_target_that_is_all_confident_leaves_source_negatives() -> None:
    # Every confidence is the same, so none lies below the percentile (docs/fidelity.md, B35).
    trainer = trainer_of(config_of("T2SDA", *WHOLE))
    batch = dataclasses.replace(
        noise_batch(2), target_image=torch.full((2, 3, *SIZE), 128, dtype=torch.uint8)
    )
    assert math.isfinite(metrics_of(trainer, batch)["loss_pull"])


def test_one_image_a_batch_is_a_batch() -> None:
    losses = metrics_of(trainer_of(config_of("T2SDA", *WHOLE)), noise_batch(1))
    assert set(losses) >= {"loss_source", "loss_mixed", "loss_pull"}
    assert all(math.isfinite(value) for value in losses.values())
    assert losses["loss_pull"] > 0


def test_a_nan_in_an_image_ends_the_run_and_updates_nothing() -> None:
    trainer = trainer_of(config_of("T2SDA", *WHOLE))
    batch = noise_batch(2)
    assert batch.translated_image is not None
    batch.translated_image[0, 0, 5, 5] = math.nan
    before = student_of(trainer)
    teacher = copy.deepcopy(trainer.meta_arch.teacher.state_dict())
    with pytest.raises(NonFiniteLossError, match=r"iteration 0: not finite: .*loss_pull=nan"):
        trainer.run_step(0, iter([batch]))
    for name, parameter in student_of(trainer).items():
        assert torch.equal(parameter, before[name]), name
    for name, value in trainer.meta_arch.teacher.state_dict().items():
        assert torch.equal(value, teacher[name]), name
