"""A set with classes of its own: checked, trained on, scored, exported, used for inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.data.catalog import DATASETS
from t2sda.evaluation.entries import read_entries
from t2sda.registry import Registry
from tests.integration.conftest import Run

SIZE = (72, 100)

DATASET = """
name: harbour
root: "Häfen & Kais"
images: images/{{split}}/*.png
labels: labels/{{split}}/{{stem}}_ids.png
splits: [train, val]
classes: [{names}]
ids: {{{ids}}}
ignored: [0]
"""

TARGET = """
name: photographs
root: "Häfen & Kais"
images: photographs/**/*.jpg
"""

CONFIG = """
META_ARCH: {NAME: T2SDA}
DATASETS: {FILES: [harbour.yaml, photographs.yaml], SOURCE: harbour_train, TARGET: photographs}
DATA: {CROP_SIZE: [64, 64], NUM_WORKERS: 0}
RARE_CLASSES: {ENABLED: true, MIN_SHARE: 0.001}
TRANSLATION: {NAME: FDA}
HOOKS: {NAMES: [EmaTeacher, DynamicReweighting]}
MODEL: {BACKBONE: {TIMM_NAME: test_resnet}, HEAD: {CHANNELS: 8}}
SOLVER: {MAX_ITER: 2, BATCH_SIZE: 2, WARMUP_ITERS: 0}
EVALUATION: {PERIOD: 2, DATASETS: [harbour_val]}
LOGGING: {PERIOD: 1, TENSORBOARD: false}
DEVICE: cpu
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """What a run registers is forgotten; its cache and relative paths are here."""
    monkeypatch.setattr(DATASETS, "_components", dict(DATASETS._components))
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return DATASETS


def make_harbour(folder: Path, names: list[str]) -> None:
    """Images, labels of the ids 10, 20, 30, …, photographs, and the files that name them."""
    dice = np.random.default_rng(0)
    ids = [10 * (index + 1) for index in range(len(names))]
    root = folder / "Häfen & Kais"
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            label = np.resize(dice.permutation([0, *ids]), SIZE)  # every id, in stripes
            write(root / f"labels/{split}/{index}_ids.png", label.astype(np.uint16))
            image = dice.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            write(root / f"images/{split}/{index}.png", image)
    for index in range(2):
        image = dice.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        write(root / f"photographs/día/{index}.jpg", image)
    mapping = ", ".join(f"{name}: {raw}" for name, raw in zip(names, ids, strict=True))
    text = DATASET.format(names=", ".join(names), ids=mapping)
    (folder / "harbour.yaml").write_text(text, encoding="utf-8")
    (folder / "photographs.yaml").write_text(TARGET, encoding="utf-8")
    (folder / "run.yaml").write_text(CONFIG)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.mark.parametrize(
    "num_classes",
    [5, pytest.param(2, marks=pytest.mark.slow), pytest.param(255, marks=pytest.mark.slow)],
)
def test_from_check_to_inference(t2sda_inline: Run, tmp_path: Path, num_classes: int) -> None:
    names = ["quay", "water", "ship", "crane", "docker"][:num_classes]
    names += [f"class{index}" for index in range(len(names), num_classes)]
    make_harbour(tmp_path, names)

    checked = t2sda_inline("data", "check", "harbour.yaml", "photographs.yaml", "--output", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "nothing is wrong" in checked.stdout
    for name in ("harbour_train_classes.png", "harbour_val_sheet.png", "photographs_sheet.png"):
        assert (tmp_path / "check" / name).is_file()

    trained = t2sda_inline("train", "--config-file", "run.yaml", "--output-dir", "run")
    assert trained.returncode == 0, trained.stderr
    scored = t2sda_inline(
        "train", "--config-file", "run.yaml", "--output-dir", "run", "--eval-only"
    )
    assert scored.returncode == 0, scored.stderr
    (entry,) = read_entries(tmp_path / "run/evaluation.json")
    assert (entry.scores.dataset, list(entry.scores.iou)) == ("harbour_val", names)

    # Without --size: that of the source's images, found through DATASETS.FILES of the checkpoint.
    DATASETS._components.pop("harbour_train")
    DATASETS._components.pop("harbour_val")
    exported = t2sda_inline("export", "onnx", "run", "--output", "student.onnx")
    assert exported.returncode == 0, exported.stderr
    assert f"{SIZE[0]}x{SIZE[1]}" in exported.stdout

    images = tmp_path / "Häfen & Kais/photographs"
    inferred = t2sda_inline(
        "infer", "--model", "student.onnx", "--input", images, "--output", "out"
    )
    assert inferred.returncode == 0, inferred.stderr
    labels = [np.asarray(Image.open(path)) for path in (tmp_path / "out").rglob("*_trainid.png")]
    assert [label.shape for label in labels] == [SIZE] * 2
    assert max(label.max() for label in labels) < num_classes
