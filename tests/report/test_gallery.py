"""Which images are shown, and that their pixels are those of labels and predictions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from t2sda.analysis.classes import Classes
from t2sda.constants import IGNORE_INDEX
from t2sda.data.taxonomies import CITYSCAPES_19, ClassGroup
from t2sda.errors import UserError
from t2sda.report.gallery import (
    Choice,
    check_size,
    choose,
    image_uri,
    labels_uri,
    mistakes_uri,
    size_within,
)
from t2sda.report.read import Group, Run
from t2sda.report.scores import Score
from tests.report.folders import entry_of, grouped, pixels, scores_of


def group_of(name: str, right: dict[str, int]) -> Group:
    """One run with images of one class and ten pixels, so many of which are right."""
    matrices = {image: [[n, 10 - n], [0, 0]] for image, n in right.items()}
    scores = scores_of(matrices, classes=("land", "sea"))
    score = Score("harbour_val", 1, scores.iou, scores.mean_iou, {}, entry_of(scores))
    return Group(name, [Run(name, Path(name), {}, {}, {"harbour_val": score})])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"d": "worst"}),
        (3, {"d": "worst", "a": "best", "b": "largest difference"}),
        (4, {"d": "worst", "c": "worst", "a": "best", "b": "largest difference"}),
        (9, {"d": "worst", "c": "worst", "a": "best", "b": "largest difference"}),
    ],
)
def test_worst_best_and_most_different_in_turn(count: int, expected: dict[str, str]) -> None:
    groups = [
        group_of("one", {"a": 9, "b": 9, "c": 3, "d": 1}),
        group_of("two", {"a": 9, "b": 2, "c": 4, "d": 1}),
    ]
    chosen = choose(groups, "harbour_val", count)
    assert {choice.name: choice.reason for choice in chosen} == expected
    assert choose(groups, "elsewhere", count) == []


def test_images_that_a_run_lacks_are_not_chosen() -> None:
    groups = [group_of("one", {"a": 1, "b": 2}), group_of("two", {"b": 3})]
    assert [choice.name for choice in choose(groups, "harbour_val", 5)] == ["b"]


def test_images_are_scored_by_what_is_reported() -> None:
    # Water taken for a ship is no error where both are one group: 8 of 10 on the quay, 20 of 22.
    scores = grouped({"a": [[8, 2, 0], [0, 10, 10], [0, 0, 0]]}, {"land": (0,), "sea": (1, 2)})
    assert scores.groups is not None
    score = Score("harbour_val", 1, scores.groups.iou, 0.0, {}, entry_of(scores))
    assert score.image_scores() == {"a": pytest.approx((8 / 10 + 20 / 22) / 2)}
    bare = Score(
        "harbour_val",
        1,
        scores.iou,
        0.0,
        {},
        entry_of(dataclasses.replace(scores, groups=None, group_classes={})),
    )
    assert bare.image_scores() == {"a": pytest.approx((8 / 10 + 10 / 22 + 0) / 3)}


def test_a_prediction_of_another_size_is_refused() -> None:
    run = Run("run", Path("runs/run"), {}, {}, {})
    with pytest.raises(UserError, match=r"runs/run: its prediction of a \(set\) is 4x6, .* 8x6"):
        check_size(np.zeros((4, 6)), np.zeros((8, 6)), run, Choice("set", "a", "best"))


def test_labels_keep_their_colors_and_what_is_no_class_is_transparent() -> None:
    labels = np.array([[0, 13], [18, IGNORE_INDEX]], dtype=np.uint8)
    found = pixels(labels_uri(labels, (2, 2), CITYSCAPES_19))
    for at, index in (((0, 0), 0), ((0, 1), 13), ((1, 0), 18)):
        assert tuple(found[at]) == (*CITYSCAPES_19.palette[index], 255)
    assert found[1, 1, 3] == 0


def test_mistakes_by_hand() -> None:
    truth = np.array([[1, 2, IGNORE_INDEX]], dtype=np.uint8)
    labels = np.ones((1, 3), dtype=np.uint8)
    found = pixels(mistakes_uri(labels, truth, (1, 3), Classes.of(CITYSCAPES_19)))
    assert found[0, :, 3].tolist() == [0, 255, 110]
    one_group = Classes.of(CITYSCAPES_19, [ClassGroup("both", (1, 2))])
    found = pixels(mistakes_uri(labels, truth, (1, 3), one_group))
    assert found[0, :, 3].tolist() == [0, 0, 110]


def test_labels_shrink_without_new_classes_and_images_to_their_mean() -> None:
    labels = np.repeat(np.repeat(np.array([[0, 13], [18, 1]], np.uint8), 8, 0), 8, 1)
    found = pixels(labels_uri(labels, (2, 2), CITYSCAPES_19))
    assert tuple(found[0, 1, :3]) == CITYSCAPES_19.palette[13]
    image = np.zeros((16, 16, 3), np.uint8)
    image[::2] = 200
    np.testing.assert_allclose(pixels(image_uri(image, (2, 2)))[..., :3], 100, atol=3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((256, 512), (256, 512)), ((1024, 2048), (320, 640)), ((1, 2000), (1, 640))],
)
def test_sizes_keep_their_ratio_within_the_bound(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert size_within(size) == expected
