"""`t2sda infer`: confidence, JSON, and the mean of windows, as far as a file can tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.runtime.metadata import OutputKind
from tests.tiny_onnx import SIZE, metadata, tiny_model, write_tiny


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    dice = np.random.default_rng(0)
    size = (SIZE[0] + 20, SIZE[1] + 30)
    Image.fromarray(dice.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def infer(photo: Path, output_kind: OutputKind, kinds: str, *options: str) -> int:
    model = tiny_model(output_kind, properties=metadata(output_kind).to_properties())
    path = write_tiny(photo.parent / "tiny.onnx", model)
    fixed = ["--model", str(path), "--input", str(photo), "--output", str(photo.parent / "out")]
    return main(["infer", *fixed, "--kind", kinds, *options])


def written(photo: Path, kind: str) -> np.ndarray:
    return np.asarray(Image.open(photo.parent / f"out/a_{kind}.png"))


def test_confidence_and_json(photo: Path) -> None:
    assert infer(photo, "logits", "trainid,confidence,json", "--min-confidence", "0.99") == 0
    model = load_model(photo.parent / "tiny.onnx")
    confidence = model.probabilities(photo).max(axis=0)
    labels = np.where(confidence < 0.99, 255, model.predict(photo))
    assert np.array_equal(written(photo, "trainid"), labels)
    assert np.array_equal(written(photo, "confidence"), np.rint(confidence * 255))
    found = json.loads((photo.parent / "out/a_json.json").read_text())
    assert found["size"] == list(labels.shape)
    assert found["unlabelled_pixels"] == (labels == 255).sum() > 0
    counts = np.bincount(labels.ravel(), minlength=256)[:255]
    pixels = {item["train_id"]: item["pixels"] for item in found["classes"]}
    assert pixels == {index: count for index, count in enumerate(counts.tolist()) if count}
    assert all(item["segmentation"]["size"] == found["size"] for item in found["classes"])


def test_windows_are_averaged_where_there_are_logits(photo: Path) -> None:
    window = ("--window", *map(str, SIZE))
    assert infer(photo, "logits", "trainid", *window) == 0
    mean = written(photo, "trainid")
    # A network of single pixels says the same in every window.
    assert np.array_equal(mean, _by_pixels(photo))
    assert infer(photo, "logits", "trainid", *window, "--overlap", "middle") == 0
    assert np.array_equal(written(photo, "trainid"), mean)


def _by_pixels(photo: Path) -> np.ndarray:
    model = load_model(photo.parent / "tiny.onnx")
    image = np.asarray(Image.open(photo))
    corner = model.predict(np.ascontiguousarray(image[: SIZE[0], : SIZE[1]]))
    other = model.predict(np.ascontiguousarray(image[-SIZE[0] :, -SIZE[1] :]))
    top = model.predict(np.ascontiguousarray(image[: SIZE[0], -SIZE[1] :]))
    bottom = model.predict(np.ascontiguousarray(image[-SIZE[0] :, : SIZE[1]]))
    labels = np.empty(image.shape[:2], dtype=np.uint8)
    for rows, columns, part in (
        (slice(None, SIZE[0]), slice(None, SIZE[1]), corner),
        (slice(None, SIZE[0]), slice(-SIZE[1], None), top),
        (slice(-SIZE[0], None), slice(None, SIZE[1]), bottom),
        (slice(-SIZE[0], None), slice(-SIZE[1], None), other),
    ):
        labels[rows, columns] = part
    return labels


def test_what_the_file_cannot_tell(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = ("--window", *map(str, SIZE))
    labels_alone = "tiny.onnx holds labels alone; export it with --output-kind probabilities"
    for output_kind, kinds, options, message in (
        ("labels", "confidence", (), f"--kind confidence: {photo.parent}/{labels_alone}"),
        ("labels", "probabilities", (), f"--kind probabilities: {photo.parent}/{labels_alone}"),
        ("labels", "json", ("--min-confidence", "0.5"), f"--min-confidence: {photo.parent}"),
        ("labels", "color", (*window, "--overlap", "average"), "--overlap average: "),
        ("logits", "color", ("--overlap", "average"), "--overlap: there is no window to move"),
    ):
        assert infer(photo, output_kind, kinds, *options) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        infer(photo, "logits", "color", "--min-confidence", "2")
    assert "'2' is no number from 0 to 1" in capsys.readouterr().err
    assert not (photo.parent / "out/a_color.png").exists()
