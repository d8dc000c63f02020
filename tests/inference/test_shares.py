"""The record of finished images, and shares of classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from t2sda.inference.shares import RECORD_NAME, Record

SETTINGS = {"model": "student.onnx", "window": (64, 96)}


def counts(**pixels: int) -> np.ndarray:
    found = np.zeros(CITYSCAPES_19.num_classes, dtype=np.int64)
    for name, count in pixels.items():
        found[CITYSCAPES_19.class_names.index(name)] = count
    return found


def test_a_resumed_record_holds_images_whose_files_are_the_same(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"image")
    Record(tmp_path, SETTINGS, resume=False, num_classes=19).add("a", counts(road=5), source)
    assert Record(tmp_path, SETTINGS, resume=True, num_classes=19).holds("a", source)
    assert not Record(tmp_path, SETTINGS, resume=True, num_classes=19).holds("b", source)
    source.write_bytes(b"another image")
    assert not Record(tmp_path, SETTINGS, resume=True, num_classes=19).holds("a", source)
    source.unlink()
    assert not Record(tmp_path, SETTINGS, resume=True, num_classes=19).holds("a", source)
    Record(tmp_path, SETTINGS, resume=False, num_classes=19)
    assert Record(tmp_path, SETTINGS, resume=True, num_classes=19).finished == {}


def test_other_settings_are_refused(tmp_path: Path) -> None:
    Record(tmp_path, SETTINGS, resume=False, num_classes=19)
    with pytest.raises(
        UserError, match=r"other settings: window was \[64, 96\], is None; .*another output"
    ):
        Record(tmp_path, {**SETTINGS, "window": None}, resume=True, num_classes=19)


@pytest.mark.parametrize("torn", ['{"name": "b", "pi', '{"name": "b"}', "[3]", "5"])
def test_a_torn_line_and_all_after_it_do_not_count(tmp_path: Path, torn: str) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"image")
    record = Record(tmp_path, SETTINGS, resume=False, num_classes=19)
    record.add("a", counts(road=5), source)
    with (tmp_path / RECORD_NAME).open("a") as file:
        file.write(torn + "\n")
    record.add("c", counts(road=7), source)
    assert set(Record(tmp_path, SETTINGS, resume=True, num_classes=19).finished) == {"a"}


def test_shares_by_hand(tmp_path: Path) -> None:
    record = Record(tmp_path, SETTINGS, resume=False, num_classes=19)
    for name, found in (("a", counts(road=3, sky=1)), ("b", counts(sky=4)), ("c", counts(car=9))):
        record.add(name, found, tmp_path)
    record.write_shares(tmp_path / "classes.json", ["a", "b"], CITYSCAPES_19)
    written = json.loads((tmp_path / "classes.json").read_text())
    assert written["images"] == {"a": {"road": 0.75, "sky": 0.25}, "b": {"sky": 1.0}}
    shares = {entry["name"]: entry["share"] for entry in written["classes"] if entry["pixels"]}
    assert shares == {"road": 0.375, "sky": 0.625}
