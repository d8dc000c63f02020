"""One step of training on every set, built tiny in the layout in which it is distributed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2sda.data.catalog import DATASETS, DATASETS_VARIABLE
from t2sda.data.check import check_dataset
from t2sda.data.dataset_files import read_dataset_file
from t2sda.data.label_tables import COMMA10K
from t2sda.engine.checkpoint import load_checkpoint
from tests.data.layouts import CARLA_FILE, LAYOUTS, carla, halves
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


def test_idd_from_its_polygons(t2sda_inline: Run, tmp_path: Path) -> None:
    LAYOUTS["idd"](tmp_path)
    words = ("data", "convert", "idd", "IDD_Segmentation", "--output", "idd_own")
    assert t2sda_inline(*words).returncode == 0
    file = "idd_own/dataset.yaml"
    spec, _ = read_dataset_file(Path(file))
    assert not check_dataset(spec.open(), spec).fatal
    label = np.asarray(Image.open("idd_own/labels/train/201/frame0029png_leftImg8bit.png.png"))
    np.testing.assert_array_equal(label, halves(8, 255))  # as its public code draws and names it
    train(t2sda_inline, "DATASETS.FILES", f"[{file}]", "DATASETS.SOURCE", "idd_own_train")


def test_19_classes_are_fine_tuned_to_5_in_one_command(t2sda_inline: Run, tmp_path: Path) -> None:
    LAYOUTS["synscapes"](tmp_path)
    LAYOUTS["comma10k"](tmp_path)
    train(t2sda_inline, "DATASETS.SOURCE", "synscapes_train")
    done = t2sda_inline(
        *("train", "--config-file", "run.yaml", "--weights", "run", "--output-dir", "five"),
        *("DATASETS.SOURCE", "comma10k_train", "SOLVER.BASE_LR", "1e-30"),
    )
    assert done.returncode == 0, done.stderr
    assert "classifier starts anew" in done.stdout + done.stderr
    first, second = (
        load_checkpoint(Path(run, "checkpoint_0000001.pth")) for run in ("run", "five")
    )
    assert second.taxonomy.class_names == COMMA10K.class_names
    name = next(name for name in first.meta_arch if name.startswith("student.model.backbone."))
    assert torch.equal(first.meta_arch[name], second.meta_arch[name])
    shapes = {tuple(tensor.shape) for tensor in second.meta_arch.values()}
    assert any(shape[:1] == (5,) for shape in shapes)
