"""Rivals of T2S-DA: two ranks step as one, and a state of their own resumes bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from t2sda.config import load_config
from t2sda.distributed import world_size
from t2sda.engine.hooks import Hook
from t2sda.evaluation.label_rules import ClassBalanced
from t2sda.evaluation.pseudo_labelling import label_dataset
from t2sda.evaluation.views import Views, protocol_for
from t2sda.structures import DomainBatch, Step
from tests.distributed import on_two_ranks
from tests.evaluation.predictors import FOUR, Formula
from tests.evaluation.test_evaluator import Noise
from tests.evaluation.test_pseudo_labelling import contents
from tests.integration.conftest import TINY_CONFIG, Run, checkpoint_differences, differences
from tests.integration.test_two_ranks import FROZEN, mini_batch, own_part
from tests.meta_arch.conftest import TINY
from tests.training import trainer_of

TARGET = ["DATASETS.TARGET", "streets_hazy_train"]
AUXILIARY = ["MODEL.AUX_HEAD.NAME", "LightHead", "MODEL.AUX_HEAD.LEVEL", "1"]
RIVALS = {
    "AdaptSegNet": [
        *("META_ARCH.PASSES", "[source_output, output_adversarial]", *AUXILIARY),
        *("OUTPUT_ADVERSARIAL.WEIGHT", "0.5"),
    ],
    "FST": [
        *("META_ARCH.NAME", "SelfTraining", "HOOKS.NAMES", "[FutureTeacher]"),
        *("LOOK_AHEAD.STEPS", "2", "EMA.MOMENTUM", "0.9"),
        *("SELF_TRAINING.PSEUDO_LABEL_THRESHOLD", "0.06"),
    ],
    "SePiCo": [
        *("META_ARCH.NAME", "SePiCo", "HOOKS.NAMES", "[EmaTeacher]", "EMA.MOMENTUM", "0.9"),
        *("SEPICO.START", "0", "SEPICO.TEMPERATURE", "0.5"),
    ],
    "running prototypes": [
        *("META_ARCH.NAME", "T2SDA", "HOOKS.NAMES", "[EmaTeacher]", "EMA.MOMENTUM", "0.9"),
        *("TRANSLATION.NAME", "FDA", "T2SDA.NUM_NEGATIVES", "32", "T2SDA.PROTOTYPES", "running"),
    ],
    "MRKLD": [
        *("META_ARCH.PASSES", "[source, labelled_target]"),
        *("LABELLED_TARGET.UNIFORM_WEIGHT", "0.1"),
    ],
    "VFM-UDA": [
        *("META_ARCH.NAME", "SelfTraining", "META_ARCH.PASSES", "[source, mixed, masked]"),
        *("HOOKS.NAMES", "[EmaTeacher]", "EMA.MOMENTUM", "0.9", "MASKED.UNIT", "tokens"),
        *("SELF_TRAINING.PSEUDO_LABEL_THRESHOLD", "0.06", "SELF_TRAINING.FLIP", "true"),
        *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"),
        *("MODEL.BACKBONE.PYRAMID_CHANNELS", "0", "MODEL.NORM", "batch"),
    ],
    "MinEnt": ["META_ARCH.PASSES", "[source, entropy]", *AUXILIARY],
}
RESUMED = ("AdaptSegNet", "FST", "SePiCo", "VFM-UDA", "running prototypes")
"""Those that have a state of their own, or whose optimizer counts more steps than iterations."""


def keys_of(name: str) -> list[str]:
    return [*TARGET, *RIVALS[name]]


def on_this_rank(_: int = 0) -> dict[str, Any]:
    """Pseudo-labels in a folder of the working directory, and every rival after two steps."""
    views = Views(Formula(), protocol_for(Formula()), with_confidence=True)
    folder = Path.cwd() / f"of_{world_size()}" / "labels"
    labels = label_dataset(views, FOUR, Noise(), ClassBalanced(0.3), folder, {})
    return {"labels": dict(labels.class_pixels), "rivals": stepped()}


def stepped() -> dict[str, Any]:
    """Metrics and weights of every rival after two steps, on this rank's part of the batch."""
    found: dict[str, Any] = {}
    for name in RIVALS:
        frozen = [word for word in FROZEN if word not in ("HOOKS.NAMES", FROZEN[3])]
        trainer = trainer_of(load_config(None, [*TINY, *frozen, *keys_of(name)]))
        trainer.hooks.append(listener := Listener())
        for iteration in range(2):
            trainer.run_step(iteration, iter([own_part(labelled_batch(iteration))]))
        found[name] = {"metrics": listener.steps, "state": trainer.meta_arch.state_dict()}
    return found


def labelled_batch(iteration: int) -> DomainBatch:
    """A fifth of the target has a label, on the second rank's images none."""
    batch = mini_batch(iteration)
    labels = batch.source_label.roll(1, 0)
    labels[:2, 13:] = labels[2:] = 255
    return replace(batch, target_label=labels)


class Listener(Hook):
    """Keeps the metrics of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def after_step(self, step: Step) -> None:
        self.steps.append(dict(step.metrics))


def test_two_ranks_label_and_step_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = on_this_rank()
    halves = on_two_ranks(on_this_rank, tmp_path)
    for half in halves:
        assert half["labels"] == whole["labels"]
    assert contents(tmp_path / "of_1") == contents(tmp_path / "of_2")
    assert len(contents(tmp_path / "of_2")) == 8
    one, ranks = whole["rivals"], [half["rivals"] for half in halves]
    for name, expected in one.items():
        assert differences(ranks[0][name]["state"], ranks[1][name]["state"]) == [], name
        for ours, theirs in zip(ranks[0][name]["metrics"], expected["metrics"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4), name
        for key, value in expected["state"].items():
            found = ranks[0][name]["state"][key]
            if "discriminators" in key:
                # Adam moves by 1e-4 a step; where a gradient is near 0, rounding decides its sign.
                assert (found - value).abs().mean() < 1e-6, key
            else:
                torch.testing.assert_close(found, value, rtol=1e-4, atol=2e-6, msg=f"{name}: {key}")


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_resumes_bit_for_bit(name: str, t2sda_inline: Run, tmp_path: Path) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(TINY_CONFIG.replace("MAX_ITER: 12", "MAX_ITER: 4"))
    words = ["train", "--config-file", config, "--output-dir", run, "--resume", *keys_of(name)]
    final, kept = run / "checkpoint_0000004.pth", tmp_path / "undisturbed.pth"
    for _ in range(2):  # the second time from the checkpoint after three steps
        result = t2sda_inline(*words)
        assert result.returncode == 0, result.stderr
        if not kept.exists():
            final.rename(kept)
    assert checkpoint_differences(kept, final) == []
    earlier, later = (
        torch.load(path, weights_only=True)["meta_arch"]
        for path in (run / "checkpoint_0000003.pth", final)
    )
    own = [key for key in later if key.startswith(("passes.", "teacher."))]
    assert own
    assert not all(torch.equal(earlier[key], later[key]) for key in own)
