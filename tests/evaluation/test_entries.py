"""The file of scores: what was written is read back, and what is damaged is named."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from t2sda.errors import MissingFileError, UserError
from t2sda.evaluation.entries import (
    Calibration,
    ClassScores,
    Entry,
    HeadTail,
    ImageCounts,
    Protocol,
    Scores,
    add_entries,
    read_entries,
    write_entries,
)

SCORES = Scores(
    dataset="harbour_val",
    num_images=2,
    protocol=Protocol(image_size=(64, 128), window=(64, 64), step=(32, 32), scales=(0.5, 1.0)),
    classes=("quay", "water", "ship"),
    confusion=((5, 1, 0), (2, 7, 0), (0, 0, 0)),
    iou={"quay": 5 / 8, "water": 0.7, "ship": math.nan},
    class_accuracy={"quay": 5 / 6, "water": 7 / 9, "ship": math.nan},
    accuracy=0.8,
    mean_iou=(5 / 8 + 0.7) / 2,
    subset_iou={"wet": 0.7},
    groups=ClassScores({"land": 5 / 8, "sea": 0.7}, 0.6625),
    group_classes={"land": (0,), "sea": (1, 2)},
    head_tail=HeadTail(0.6, math.nan),
    boundary_iou=ClassScores({"quay": 0.5, "water": 0.25, "ship": math.nan}, 0.375),
    calibration=Calibration(0.125, ((0, math.nan, math.nan), (15, 0.675, 0.8))),
    images=(
        ImageCounts("a/0.png", (6, 0, 0), (5, 1, 0), (5, 0, 0), (5, 0)),
        ImageCounts("a/1.png", (0, 9, 0), (2, 7, 0), (0, 7, 0), (0, 7)),
    ),
)
ENTRY = Entry("a.pth", "sha256:0", 4, "student", "torch", "2026-01-01T00:00:00+00:00", SCORES)


def test_what_was_written_is_read_back_and_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    exported = dataclasses.replace(ENTRY, iteration=None, branch=None, runtime="openvino")
    write_entries(path, [ENTRY, exported])
    assert str(read_entries(path)) == str([ENTRY, exported])  # NaN equals NaN as text
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    first = content["entries"][0]
    assert "scores" not in first  # once, not twice
    assert first["iou"]["ship"] is None
    assert first["images"][1] == {
        **{"name": "a/1.png", "true": [0, 9, 0], "predicted": [2, 7, 0], "right": [0, 7, 0]},
        "group_right": [0, 7],
    }
    assert first["protocol"]["window"] == [64, 64]
    assert list(path.parent.iterdir()) == [path]


def test_a_newer_entry_of_the_same_key_replaces_the_older(tmp_path: Path) -> None:
    path = tmp_path / "runs/evaluation.json"
    whole = dataclasses.replace(SCORES, protocol=Protocol())
    others = [
        dataclasses.replace(ENTRY, branch="teacher"),
        dataclasses.replace(ENTRY, digest="sha256:1"),
        dataclasses.replace(ENTRY, scores=whole),
    ]
    add_entries(path, [ENTRY, *others])
    newer = dataclasses.replace(ENTRY, date="2026-01-02T00:00:00+00:00")
    add_entries(path, [newer])
    assert str(read_entries(path)) == str([*others, newer])


def test_groups_are_what_is_reported_where_there_are_some() -> None:
    assert SCORES.reported.iou.keys() == {"land", "sea"}
    metrics = SCORES.as_metrics()
    assert metrics["evaluation/harbour_val/mIoU"] == 0.6625
    assert "evaluation/harbour_val/wet" not in metrics
    plain = dataclasses.replace(SCORES, groups=None, group_classes={})
    assert plain.as_metrics()["evaluation/harbour_val/mIoU"] == SCORES.mean_iou
    assert plain.as_metrics()["evaluation/harbour_val/wet"] == 0.7
    assert plain.as_metrics()["evaluation/harbour_val/IoU/water"] == 0.7


def _without_images(item: dict[str, Any]) -> None:
    del item["images"]


def _one_pixel_less(item: dict[str, Any]) -> None:
    item["images"][0]["right"][0] -= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_images, "entry 0 .harbour_val.: `images` is missing"),
        (_one_pixel_less, "`right` of the images does not add up to `confusion`"),
        (lambda item: item["images"].pop(), "1 in `images`, but `num_images` 2"),
        (lambda item: item["confusion"].pop(), "`confusion` is not 3 x 3"),
        (lambda item: item["iou"].pop("ship"), "`iou` has other classes than `classes`"),
        (lambda item: item["group_classes"].pop("sea"), "`group_classes` are not those"),
        (lambda item: item["images"][0]["group_right"].pop(), "`group_right` of an image"),
        (lambda item: item.update(mean_iou=54.3), "54.3 is no share of 1"),
        (lambda item: item.update(digest=7), "7 is no text"),
        (lambda item: item["protocol"].update(flip="no"), "'no' is neither true nor false"),
        (lambda item: item["protocol"].update(scales=[1.0, math.nan]), "nan is no factor"),
        (lambda item: item["protocol"].update(scales=[10**400]), "is no factor"),
    ],
)
def test_a_damaged_entry_is_named(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "evaluation.json"
    write_entries(path, [ENTRY])
    content = json.loads(path.read_text())
    change(content["entries"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"evaluation.json: damaged: .*{message}.*score again"):
        read_entries(path)


def test_what_is_no_file_of_scores_is_kept_and_named(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    with pytest.raises(MissingFileError):
        read_entries(path)
    path.write_text('{"evaluation/val/mIoU": 0.5}\n')
    with pytest.raises(UserError, match="not a file of scores .*move it away"):
        add_entries(path, [ENTRY])
    assert path.read_text() == '{"evaluation/val/mIoU": 0.5}\n'
    write_entries(path, [ENTRY])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged: no JSON"):
        read_entries(path)
