"""The bootstrap of a difference, beside every resample of three blocks there is."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from t2sda.cli.score_table import difference_text
from t2sda.errors import UserError
from t2sda.evaluation import bootstrap
from t2sda.evaluation.bootstrap import blocks_of, differences, mean_iou_difference
from t2sda.evaluation.entries import ClassScores, Counts, ImageCounts, Protocol, Scores

NAMES = ("a/0.png", "a/1.png", "b/0.png", "c/0.png", "c/1.png")
BLOCKS = ((0, 1), (2,), (3, 4))
"""Images of every folder."""
FIRST = [
    [[8, 2, 0], [1, 9, 0], [0, 0, 0]],
    [[5, 0, 0], [5, 5, 0], [0, 0, 0]],
    [[1, 9, 0], [0, 4, 0], [0, 0, 0]],  # class 2 is neither here nor predicted
    [[3, 3, 3], [0, 6, 0], [2, 0, 9]],
    [[9, 0, 0], [0, 0, 7], [0, 0, 4]],
]
SECOND = [
    [[6, 4, 0], [4, 6, 0], [0, 0, 0]],
    [[5, 0, 0], [2, 8, 0], [0, 0, 0]],
    [[2, 8, 0], [1, 3, 0], [0, 0, 0]],
    [[9, 0, 0], [3, 3, 0], [0, 4, 7]],
    [[1, 8, 0], [7, 0, 0], [4, 0, 0]],
]
GROUPS = {"even": (0, 2), "odd": (1,)}


def scores_of(
    confusions: list[list[list[int]]], names: tuple[str, ...] = NAMES, *, grouped: bool = False
) -> Scores:
    matrices = np.array(confusions)
    groups = [list(group) for group in GROUPS.values()] if grouped else []

    def counts(values: np.ndarray) -> Counts:
        return tuple(values.tolist())

    images = tuple(
        ImageCounts(
            name,
            counts(matrix.sum(axis=1)),
            counts(matrix.sum(axis=0)),
            counts(matrix.diagonal()),
            tuple(int(matrix[np.ix_(group, group)].sum()) for group in groups),
        )
        for name, matrix in zip(names, matrices, strict=True)
    )
    iou = dict.fromkeys(("x", "y", "z"), 0.0)
    return Scores(
        dataset="val",
        num_images=len(images),
        protocol=Protocol(),
        classes=("x", "y", "z"),
        confusion=tuple(counts(row) for row in matrices.sum(axis=0)),
        iou=iou,
        class_accuracy=iou,
        accuracy=0.0,
        mean_iou=0.0,
        groups=ClassScores(dict.fromkeys(GROUPS, 0.0), 0.0) if grouped else None,
        group_classes=GROUPS if grouped else {},
        images=images,
    )


def slow_mean_iou(confusions: list[list[list[int]]], groups: list[tuple[int, ...]]) -> float:
    total = np.sum(confusions, axis=0)
    ious = []
    for group in groups:
        right = sum(total[i, j] for i in group for j in group)
        union = sum(total[i].sum() + total[:, i].sum() for i in group) - right
        if union:
            ious.append(right / union)
    return math.fsum(ious) / len(ious)


def every_resample(groups: list[tuple[int, ...]]) -> list[float]:
    """The difference in all 27 ways to draw three blocks of three, each as likely."""
    found = []
    for draw in itertools.product(BLOCKS, repeat=3):
        images = [index for block in draw for index in block]
        first, second = ([own[i] for i in images] for own in (FIRST, SECOND))
        found.append(slow_mean_iou(first, groups) - slow_mean_iou(second, groups))
    return found


@pytest.mark.parametrize("grouped", [False, True])
def test_of_three_blocks_it_is_what_enumeration_gives(grouped: bool) -> None:
    groups = list(GROUPS.values()) if grouped else [(0,), (1,), (2,)]
    first, second = (scores_of(own, grouped=grouped) for own in (FIRST, SECOND))
    expected = every_resample(groups)
    blocks = blocks_of(NAMES, "([^/]+)/")
    counts = np.stack([bootstrap.block_counts(own, blocks) for own in (first, second)])
    draws = [
        [draw.count(block) for block in range(3)] for draw in itertools.product(range(3), repeat=3)
    ]
    np.testing.assert_allclose(differences(counts, np.array(draws)), expected, rtol=1e-12)

    found = mean_iou_difference(first, second, "([^/]+)/")
    whole = slow_mean_iou(FIRST, groups) - slow_mean_iou(SECOND, groups)
    assert found.value == pytest.approx(whole, rel=1e-12)
    # 10000 draws of 10 different values: both ends of the interval are values that occur.
    ends = np.quantile(expected, [0.025, 0.975], method="inverted_cdf")
    np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-12)
    assert found.num_blocks == 3


def test_many_draws_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = scores_of(FIRST), scores_of(SECOND)
    whole = mean_iou_difference(*pair)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 100)
    assert mean_iou_difference(*pair) == whole
    assert whole.num_blocks == 5
    assert mean_iou_difference(*pair, seed=1) != whole


def test_every_resample_has_as_many_blocks_as_there_are() -> None:
    draws = bootstrap.block_draws(300)
    assert draws.dtype == np.uint16  # 10,000 resamples of 25,000 images are half a gigabyte
    assert (draws.sum(axis=1) == 300).all()
    # Every block is drawn 300 · 10,000 / 300 times, give or take sqrt of it.
    np.testing.assert_allclose(draws.sum(axis=0, dtype=np.int64), 10_000, atol=500)


def test_a_model_does_not_differ_from_itself() -> None:
    found = mean_iou_difference(scores_of(FIRST), scores_of(FIRST))
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_single_block_has_no_interval() -> None:
    found = mean_iou_difference(scores_of(FIRST), scores_of(SECOND), "png")
    assert found.num_blocks == 1
    assert found.value != 0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert "no interval: all images are one block" in difference_text(found)


def test_blocks_are_the_text_of_the_first_group_or_of_the_whole() -> None:
    assert blocks_of(NAMES, "([^/]+)/.").tolist() == [0, 0, 1, 2, 2]
    assert blocks_of(NAMES, r"\d").tolist() == [0, 1, 0, 0, 1]
    assert blocks_of(NAMES, None).tolist() == [0, 1, 2, 3, 4]
    frames = ["frankfurt_000001_1.png", "frankfurt_000001_2.png", "munster_000001_1.png"]
    assert blocks_of(frames, r"^[a-z]+_\d+").tolist() == [0, 0, 1]


def test_what_is_no_pair_or_no_pattern_is_named() -> None:
    first = scores_of(FIRST)
    with pytest.raises(UserError, match=r"blocks 'x\('\s*: no regular expression"):
        mean_iou_difference(first, first, "x(")
    with pytest.raises(UserError, match="not found in 2 of 5 names, such as c/0.png"):
        mean_iou_difference(first, first, "[ab]/")
    with pytest.raises(UserError, match="its first group not found in 5 of 5 names"):
        mean_iou_difference(first, first, "(nowhere)?png")
    others = scores_of(FIRST, (*NAMES[:4], "d/0.png"))
    with pytest.raises(UserError, match=r"'val' are of other images or labels \(5 and 5\)"):
        mean_iou_difference(first, others)
    relabelled = scores_of([*FIRST[:4], [[8, 0, 0], [1, 0, 7], [0, 0, 4]]])
    with pytest.raises(UserError, match="other images or labels"):
        mean_iou_difference(first, relabelled)
    with pytest.raises(UserError, match="scores of 'val' and of 'test' are no pair"):
        mean_iou_difference(first, dataclasses.replace(first, dataset="test"))
    with pytest.raises(UserError, match="are of other classes; score both models again"):
        mean_iou_difference(first, dataclasses.replace(first, iou={"x": 0.0}))
