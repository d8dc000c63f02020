"""One step of training on every set, built tiny in the layout in which it is distributed."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2sda.data.catalog import DATASETS, DATASETS_VARIABLE
from tests.data.layouts import CARLA_FILE, LAYOUTS, carla
from tests.integration.conftest import Run

CONFIG = """
META_ARCH: {NAME: SourceOnly}
DATA: {SOURCE_SIZE: [64, 96], CROP_SIZE: [64, 64], NUM_WORKERS: 0}
MODEL: {BACKBONE: {TIMM_NAME: test_resnet}, HEAD: {CHANNELS: 8}}
SOLVER: {MAX_ITER: 1, BATCH_SIZE: 2, WARMUP_ITERS: 0}
EVALUATION: {PERIOD: 0}
LOGGING: {PERIOD: 1, TENSORBOARD: false}
DEVICE: cpu
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(DATASETS, "_components", dict(DATASETS._components))
    monkeypatch.setenv(DATASETS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIG)


def train(t2sda_inline: Run, *settings: str) -> None:
    done = t2sda_inline("train", "--config-file", "run.yaml", "--output-dir", "run", *settings)
    assert done.returncode == 0, done.stderr
    assert Path("run/checkpoint_0000001.pth").is_file()


def test_a_recording_of_carla(t2sda_inline: Run, tmp_path: Path) -> None:
    carla(tmp_path)
    (tmp_path / "town.yaml").write_text(CARLA_FILE)
    train(t2sda_inline, "DATASETS.FILES", "[town.yaml]", "DATASETS.SOURCE", "town")


@pytest.mark.parametrize(
    ("layout", "dataset"),
    [
        ("mapillary", "mapillary_train"),
        ("mapillary", "mapillary_v1_train"),
        ("idd", "idd_train"),
        ("kitti", "kitti_train"),
        ("vkitti2", "vkitti2_train"),
        ("synscapes", "synscapes_train"),
        ("comma10k", "comma10k_train"),
    ],
)
def test_a_set_as_distributed(t2sda_inline: Run, tmp_path: Path, layout: str, dataset: str) -> None:
    LAYOUTS[layout](tmp_path)
    train(t2sda_inline, "DATASETS.SOURCE", dataset)
