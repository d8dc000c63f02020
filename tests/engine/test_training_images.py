"""Sheets of the training: what is on them, when they are made, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.checkpoint import load_checkpoint, resolve_checkpoint
from t2sda.engine.trainer import Trainer
from t2sda.engine.training_images import TrainingImages
from t2sda.inference.visualisation import heat_map, overlay
from t2sda.structures import Step
from t2sda.training.run import run_training
from tests.meta_arch.conftest import METHODS, TINY, config_of
from tests.training import CPU, noise_batch, trainer_of

PASSES = ["META_ARCH.PASSES", "[source, mixed, pull, masked]", "MASKED.BLOCK_SIZE", "16"]
SIZE = (64, 96)


class Sheets(dict[str, np.ndarray]):
    """What was written last, and after how many steps."""

    def write(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        self.iteration = iteration
        self.update(images)

    def panel(self, name: str, row: int, column: int) -> np.ndarray:
        """Of SIZE; 12 pixels between them, titles of 34 above."""
        top, left = 34 + row * (SIZE[0] + 12), 12 + column * (SIZE[1] + 12)
        return self[name][top : top + SIZE[0], left : left + SIZE[1]]


class LastStep(TrainingImages):
    """Keeps the record of the step."""

    step: Step

    def after_step(self, step: Step) -> None:
        self.step = step
        super().after_step(step)


def trained(period: int, write: Any, steps: int = 1) -> tuple[Trainer, LastStep]:
    """A trainer of all passes after some steps, with the hook."""
    trainer = trainer_of(config_of("T2SDA", *PASSES))
    hook = LastStep(trainer.meta_arch, CITYSCAPES_19, CPU, write, period=period, max_iter=100)
    trainer.hooks.append(hook)
    batches = iter(noise_batch(2, seed) for seed in range(steps))
    for iteration in range(steps):
        trainer.run_step(iteration, batches)
    return trainer, hook


def test_sheets_show_the_record_of_the_step() -> None:
    sheets = Sheets()
    trainer, hook = trained(1, sheets.write)
    batch, teacher, model = hook.step.batch, hook.step.teacher, trainer.meta_arch.student.model
    assert set(sheets) == {"images/source", "images/target", "images/student"}
    assert sheets.iteration == 1
    assert teacher is not None
    assert model.training
    model.eval()
    for row in range(2):
        source = batch.source_image[row].permute(1, 2, 0).numpy()
        label = batch.source_label[row].numpy().astype(np.uint8)
        target = batch.image("target")[row].permute(1, 2, 0).numpy()
        with torch.no_grad():
            predicted = [
                model(image[row : row + 1]).argmax(dim=1)[0].numpy().astype(np.uint8)
                for image in (batch.source_image, batch.image("target"))
            ]
        pseudo_labels = teacher.pseudo_labels[row].numpy().astype(np.uint8)
        for name, column, expected in (
            ("images/source", 0, source),
            ("images/source", 1, overlay(source, label, CITYSCAPES_19)),
            ("images/source", 2, overlay(source, predicted[0], CITYSCAPES_19)),
            ("images/target", 0, target),
            ("images/target", 1, overlay(target, predicted[1], CITYSCAPES_19)),
            ("images/target", 2, overlay(target, pseudo_labels, CITYSCAPES_19)),
            ("images/target", 3, heat_map(teacher.confidence[row].numpy())),
            ("images/student", 0, source),
            ("images/student", 2, batch.image("translated")[row].permute(1, 2, 0).numpy()),
        ):
            found = sheets.panel(name, row, column)
            np.testing.assert_array_equal(found, expected, err_msg=f"{name}, {column}")


def test_what_a_pass_showed_is_what_the_student_got(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass's image is drawn anew for the sheet, and is the one of its forward."""
    trainer = trainer_of(config_of("T2SDA", *PASSES))
    student = trainer.meta_arch.student
    seen: list[torch.Tensor] = []
    features_of = student.model.features

    def recording(image: torch.Tensor, generator: torch.Generator | None = None) -> Any:
        seen.append(image)
        return features_of(image, generator)

    monkeypatch.setattr(student.model, "features", recording)
    hook = LastStep(trainer.meta_arch, CITYSCAPES_19, CPU, None, period=0, max_iter=100)
    trainer.hooks.append(hook)
    trainer.run_step(0, iter([noise_batch(2)]))
    shown = [item.shown(student, hook.step) for item in trainer.meta_arch.passes.values()]  # type: ignore[operator]
    assert len(seen) == len(shown) == 4
    for given, again in zip(seen, shown, strict=True):
        assert torch.equal(given, again)


def test_nothing_is_made_in_other_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("computed though it was not due")

    monkeypatch.setattr(TrainingImages, "_student", refuse)
    monkeypatch.setattr(TrainingImages, "_source", refuse)
    for period in (0, 4):
        sheets = Sheets()
        trained(period, sheets.write, steps=3)
        assert not sheets


def test_a_rank_that_writes_nothing_predicts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Step] = []
    monkeypatch.setattr(TrainingImages, "_student", lambda self, step: drawn.append(step))
    monkeypatch.setattr(TrainingImages, "_source", lambda self, step: 1 / 0)
    trained(1, None)
    assert len(drawn) == 1, "what is drawn for the whole mini-batch is drawn on all ranks"


def test_large_crops_become_smaller_panels() -> None:
    sheets = Sheets()
    hook = TrainingImages(
        trainer_of(config_of("SourceOnly")).meta_arch,
        CITYSCAPES_19,
        CPU,
        sheets.write,
        period=1,
        max_iter=1,
    )
    step = trained(0, None)[1].step
    for name in ("source_image", "source_label"):
        old = getattr(step.batch, name)
        large = old.repeat_interleave(8, -1).repeat_interleave(8, -2)  # 512 x 768
        object.__setattr__(step.batch, name, large)
    object.__setattr__(step.batch, "target_image", None)
    hook.after_step(step)
    assert set(sheets) == {"images/source", "images/student"}
    assert sheets["images/student"].shape == (34 + 2 * (256 + 12), 384 + 2 * 12, 3)


def test_training_is_the_same_with_and_without_images(tmp_path: Path) -> None:
    """Two steps with sheets after each, whose images TensorBoard gets, and two without."""
    settings = [
        *("META_ARCH.NAME", "T2SDA", *TINY, *METHODS["T2SDA"], *PASSES, "DEVICE", "cpu"),
        *("DATASETS.SOURCE", "streets_clear_train", "SOLVER.MAX_ITER", "2"),
        *("SOLVER.BATCH_SIZE", "2", "DATA.CROP_SIZE", "[64, 96]", "DATA.NUM_WORKERS", "0"),
        *("EVALUATION.PERIOD", "1", "RARE_CLASSES.ENABLED", "false"),
    ]
    states = []
    for name, tensorboard in (("with", "true"), ("without", "false")):
        output = ["OUTPUT_DIR", str(tmp_path / name), "LOGGING.TENSORBOARD", tensorboard]
        run_training(load_config(None, [*settings, *output]))
        states.append(load_checkpoint(resolve_checkpoint(tmp_path / name)).meta_arch)
    assert states[0].keys() == states[1].keys()
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key
    events = EventAccumulator(str(tmp_path / "with/tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["images/source", "images/student", "images/target"]
    assert [event.step for event in events.Images("images/target")] == [1, 2]
