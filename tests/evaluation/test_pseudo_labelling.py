"""Pseudo-labels of a set: what is written, gone on with, the same on two ranks, and refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2sda.data.datasets import SegmentationDataset
from t2sda.errors import UserError
from t2sda.evaluation import pseudo_labelling as module
from t2sda.evaluation.label_rules import (
    Argmax,
    ClassBalanced,
    ConfidenceHistogram,
    LabelRule,
    Threshold,
    labels_above,
)
from t2sda.evaluation.pseudo_labelling import PseudoLabels, label_dataset
from t2sda.evaluation.views import Views, protocol_for
from t2sda.images import read_label
from tests.evaluation.predictors import FOUR, Formula
from tests.evaluation.test_evaluator import Noise

ORIGIN = {"model": "sha256:0", "iteration": 3}


def views_of(predictor: Formula, flip: bool = False) -> Views:
    return Views(predictor, protocol_for(predictor, flip=flip), with_confidence=True)


def label(
    folder: Path, rule: LabelRule, views: Views | None = None, **changes: Any
) -> PseudoLabels:
    views = views or views_of(Formula())
    return label_dataset(views, FOUR, Noise(), rule, folder, ORIGIN | changes)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)


@pytest.mark.parametrize("flip", [False, True])
def test_labels_are_those_of_the_rule_and_the_record_counts_them(
    tmp_path: Path, flip: bool
) -> None:
    views, dataset = views_of(Formula(), flip), Noise()
    found = label(tmp_path / "round", ClassBalanced(0.3), views)
    histogram = ConfidenceHistogram.empty(4)
    probs = [views.probabilities(dataset.load_image(index)) for index in range(5)]
    for item in probs:
        histogram.add(item)
        np.testing.assert_allclose(item.sum(axis=0), 1, rtol=1e-5)
    thresholds = histogram.thresholds(0.3)
    counts = np.zeros(256, dtype=int)
    for index, item in enumerate(probs):
        expected = labels_above(item, thresholds)
        written = read_label(tmp_path / "round/labels" / f"noise[{index}].png")
        np.testing.assert_array_equal(written, expected)
        counts += np.bincount(expected.ravel(), minlength=256)
    record = json.loads((tmp_path / "round/pseudo_labels.json").read_text())
    assert record["rule"] == "cbst"
    assert (record["portion"], record["model"], record["iteration"]) == (0.3, "sha256:0", 3)
    assert record["class_pixels"] == dict(zip(FOUR.class_names, counts[:4], strict=True))
    assert record["unlabelled_pixels"] == counts[255] == found.pixels - counts[:4].sum()
    assert list(record["class_thresholds"].values()) == pytest.approx(list(thresholds))
    assert ("flipped" in record["protocol"]) == flip
    assert {path.name for path in (tmp_path / "round").iterdir()} == {
        *("labels", "dataset.yaml", "pseudo_labels.json", "plan.json")
    }


class KilledError(Exception):
    """In place of a kill."""


class Mortal(Formula):
    """Stops the labelling after some images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.seen: list[int] = []  # shared by the copies that views make
        self.images = images

    def _logits(self, frames: list[Any]) -> list[np.ndarray]:
        if len(self.seen) == self.images:
            raise KilledError
        self.seen.append(len(frames))
        return super()._logits(frames)


@pytest.mark.parametrize(("images", "left"), [(3, 8), (7, 3)])
def test_what_was_stopped_goes_on(tmp_path: Path, images: int, left: int) -> None:
    """Five images twice; stopped in the second block of two, or at the third label."""
    rule = ClassBalanced(0.3)
    label(tmp_path / "whole", rule)
    with pytest.raises(KilledError):
        label(tmp_path / "again", rule, views_of(Mortal(images)))
    assert not (tmp_path / "again/dataset.yaml").exists()
    rest = Mortal(100)
    label(tmp_path / "again", rule, views_of(rest))
    assert len(rest.seen) == left
    again, whole = contents(tmp_path / "again"), contents(tmp_path / "whole")
    assert again.pop("dataset.yaml") != whole.pop("dataset.yaml")  # the names
    assert again == whole


def test_another_rule_or_model_needs_another_folder(tmp_path: Path) -> None:
    label(tmp_path, Threshold(0.3))
    with pytest.raises(UserError, match="pseudo-labels of another threshold; remove the folder"):
        label(tmp_path, Threshold(0.4))
    with pytest.raises(UserError, match="another model"):
        label(tmp_path, Threshold(0.3), model="sha256:1")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="not empty; choose another folder"):
        label(tmp_path, Argmax())
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_rule_that_labels_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="labels no pixel of the 5 images of 'noise'; lower --thr"):
        label(tmp_path, Threshold(0.999999))
    assert not (tmp_path / "dataset.yaml").exists()


class OneClass(Formula):
    """Sure of the sky everywhere."""

    def formula(self, image: np.ndarray) -> np.ndarray:
        maps = super().formula(image)
        maps[0] += 100
        return maps


def test_labels_of_one_class_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="t2sda"):
        label(tmp_path, Argmax(), views_of(OneClass()))
    assert "all labels are of one class, 'sky'" in caplog.text


class Doubled(Noise):
    """Two images whose labels would be one file."""

    def relative_name(self, index: int) -> str:
        return f"same.{index}"


def test_two_images_with_one_label_file_are_refused(tmp_path: Path) -> None:
    dataset: SegmentationDataset = Doubled()
    views = views_of(Formula())
    with pytest.raises(UserError, match=r"same\.0 and same\.1 of 'noise' would both be written"):
        label_dataset(views, FOUR, dataset, Argmax(), tmp_path / "out", ORIGIN)
