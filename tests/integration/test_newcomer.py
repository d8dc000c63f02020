"""What a newcomer touches: a backbone, a dataset and a hook in one file, loaded with --plugin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from t2sda.evaluation.entries import read_entries
from tests.integration.conftest import Run

PLUGIN = '''
"""A network, a dataset and a hook of my own."""

from torch import nn

from t2sda.config import SCHEMA, Field
from t2sda.data.catalog import DatasetSpec, register_dataset
from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.hooks import Hook
from t2sda.modeling.backbones.base import Backbone
from t2sda.registry import BACKBONES, HOOKS
from t2sda.structures import FeatureSpec

SCHEMA.declare("HARBOUR", {"WIDTH": Field(8, "channels", low=1)})
HARBOUR = Taxonomy("harbour", ("quay", "water", "ship"), ((90, 90, 90), (0, 0, 200), (200, 0, 0)))


@BACKBONES.register()
class TwoConvolutions(Backbone):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=4, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.feature_specs = (FeatureSpec(width, 4), FeatureSpec(2 * width, 8))
        self.pixel_mean, self.pixel_std = (128.0,) * 3, (64.0,) * 3

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.HARBOUR.WIDTH)

    def forward(self, image):
        first = self.first(image).relu()
        return first, self.second(first).relu()


register_dataset(
    DatasetSpec(
        name="harbour_train",
        root="harbour",
        images="images/*.png",
        labels="labels/{stem}.png",
        taxonomy=HARBOUR,
    )
)


@HOOKS.register()
class Greeter(Hook):
    def after_step(self, step):
        step.metrics["greeter/answer"] = 42.0
'''

CONFIG = """
DATASETS: {SOURCE: harbour_train}
DATA: {CROP_SIZE: [32, 32], NUM_WORKERS: 1}
MODEL: {BACKBONE: {NAME: TwoConvolutions}, HEAD: {CHANNELS: 8}}
HARBOUR: {WIDTH: 12}
HOOKS: {NAMES: [Greeter]}
SOLVER: {MAX_ITER: 3, BATCH_SIZE: 2}
EVALUATION: {PERIOD: 3, DATASETS: [harbour_train]}
LOGGING: {PERIOD: 1, TENSORBOARD: false}
DEVICE: cpu
"""


def test_backbone_dataset_and_hook_of_ones_own(t2sda: Run, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for folder, shape, most in (("images", (40, 50, 3), 256), ("labels", (40, 50), 3)):
        (tmp_path / "harbour" / folder).mkdir(parents=True)
        for index in range(4):
            image = dice.integers(0, most, shape, dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "harbour" / folder / f"{index}.png")
    (tmp_path / "my_harbour.py").write_text(PLUGIN)
    (tmp_path / "harbour.yaml").write_text(CONFIG)
    arguments = ["train", "--config-file", "harbour.yaml", "--output-dir", "run"]

    result = t2sda(*arguments, "--plugin", "my_harbour", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["greeter/answer"] == 42
    assert "evaluation/harbour_train/IoU/ship" in lines[-1]
    scored = t2sda(
        *arguments, "--plugin", "my_harbour.py", "--eval-only", "--weights", "run", cwd=tmp_path
    )
    assert scored.returncode == 0, scored.stderr
    (entry,) = read_entries(tmp_path / "run/evaluation.json")
    assert entry.scores.mean_iou == lines[-1]["evaluation/harbour_train/mIoU"]

    forgotten = t2sda(*arguments, "--resume", cwd=tmp_path)
    assert forgotten.returncode == 2
    assert "HARBOUR" in forgotten.stderr
