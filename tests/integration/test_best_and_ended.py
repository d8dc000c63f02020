"""Best checkpoint, early end and a hook with a state: a resumed run ends with the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from t2sda.training import run as running
from tests.components import components_restored
from tests.integration.conftest import Run, checkpoint_differences

PLUGIN = """
import torch
from t2sda.engine.hooks import Hook
from t2sda.registry import HOOKS


@HOOKS.register()
class Remembers(Hook):
    def __init__(self):
        self.total = torch.zeros(2, dtype=torch.float64)

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]

    def after_step(self, step):
        self.total[0] += step.metrics["grad_norm"]

    def after_evaluation(self, iteration, scores):
        self.total[1] += iteration * scores["streets_hazy_val/mIoU"]
"""
SETTINGS = ("SOLVER.MAX_ITER", 6, "EVALUATION.PERIOD", 1)
SETTINGS += ("EVALUATION.DATASETS", "[streets_hazy_val]")
SETTINGS += ("CHECKPOINT.BEST", "streets_hazy_val/mIoU", "CHECKPOINT.PATIENCE", 2)
SCORES = (0.1, 0.3, 0.2, 0.25, 0.4, 0.5)
"""After each iteration; patience ends at the fourth."""


class Given:
    """In place of scores, which take seconds."""

    dataset = "streets_hazy_val"

    def __init__(self, iteration: int) -> None:
        self.score = SCORES[iteration - 1]
        self.reported = self
        self.mean_iou = self.score

    def as_metrics(self) -> dict[str, float]:
        return {"evaluation/streets_hazy_val/mIoU": self.score}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hook's file; evaluations give SCORES."""
    monkeypatch.setattr(
        running,
        "evaluate_all",
        lambda cfg, predictor, progress: [Given(predictor.origin["iteration"])],
    )
    monkeypatch.setattr(running.TrainingRun, "_keep_scores", lambda self: None)
    monkeypatch.setattr("t2sda.cli.train.show_scores", lambda console, scores: None)
    path = tmp_path / "remembers.py"
    path.write_text(PLUGIN)
    return path


def test_killed_and_resumed(t2sda_inline: Run, tiny_config: Path, plugin: Path) -> None:
    folder = tiny_config.parent
    fixed = ["HOOKS.NAMES", "[Remembers]", "CHECKPOINT.PERIOD", 3, *SETTINGS]

    def train(*arguments: object) -> str:
        with components_restored():
            result = t2sda_inline("train", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    options = ("--config-file", tiny_config, "--plugin", plugin)
    said = train(*options, "--output-dir", folder / "whole", *fixed)
    assert "ended after iteration 4, as a hook asked for" in said
    assert "best streets_hazy_val/mIoU: 0.3000 after iteration 2" in said
    whole, other = folder / "whole", folder / "other"
    assert sorted(path.name for path in whole.glob("*.pth")) == [
        "checkpoint_0000003.pth",
        "checkpoint_0000004.pth",
        "checkpoint_best.pth",
    ]
    # As if it had been killed after the checkpoint of iteration 3; its configuration starts it.
    other.mkdir()
    content = (whole / "checkpoint_0000003.pth").read_bytes()
    (other / "checkpoint_0000003.pth").write_bytes(content)
    settings = yaml.safe_load((whole / "config.yaml").read_text())
    assert settings["PLUGINS"] == [str(plugin)]
    train("--config-file", whole / "config.yaml", "--output-dir", other, "--resume")
    names = ("checkpoint_0000004.pth",)
    assert [checkpoint_differences(whole / name, other / name) for name in names] == [[]]
    state = torch.load(other / names[0], weights_only=True)["hooks"]
    assert float(state["Remembers"]["total"][1]) == pytest.approx(0.1 + 0.6 + 0.6 + 1.0)
    assert float(state["BestCheckpoint"]["best"]) == 0.3
    # Resumed once more, it is at its end already.
    assert "ended after iteration 4" in train(
        "--config-file", whole / "config.yaml", "--output-dir", other, "--resume"
    )
    record = json.loads((whole / "run.json").read_text())["sessions"][0]
    assert record["command"]
    assert record["ended_by_hook"] is True
    assert record["host"]
    assert record["folder"] == str(Path.cwd())
