"""Differences of groups against all resamples there are, each counted out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from t2sda.errors import UserError
from t2sda.evaluation.entries import Scores
from t2sda.report.differences import Difference, group_difference
from t2sda.report.read import Group, Run
from t2sda.report.scores import Score, Spread, spread
from tests.report.folders import CLASSES, entry_of, scores_of

Matrices = dict[str, list[list[int]]]


def noisy(seed: int) -> Matrices:
    """Three images whose counts have nothing in common."""
    dice = np.random.default_rng(seed)
    truth = np.random.default_rng(99).integers(0, 2, (3, 60))
    found: Matrices = {}
    for name, true in zip(("a/0", "a/1", "b/0"), truth, strict=True):
        predicted = np.where(dice.random(60) < dice.random(), true, dice.integers(0, 2, 60))
        matrix = np.zeros((3, 3), dtype=int)
        np.add.at(matrix, (true, predicted), 1)
        found[name] = matrix.tolist()
    return found


def group_of(name: str, runs: Sequence[Matrices], counted: bool = True) -> Group:
    found = []
    for number, matrices in enumerate(runs):
        scores = scores_of(matrices)
        score = Score(
            "harbour_val",
            60,
            scores.iou,
            scores.mean_iou,
            {},
            entry_of(scores) if counted else None,
        )
        found.append(Run(f"{name}{number}", None, {}, {}, {"harbour_val": score}))  # type: ignore[arg-type]
    return Group(name, found)


def iou_by_hand(matrices: Matrices, drawn: Sequence[str], name: str | None) -> float:
    """IoU of a class, or the mean of those that are there, in percent; plain loops."""
    shares = []
    for k, own in enumerate(CLASSES):
        right = sum(matrices[image][k][k] for image in drawn)
        true = sum(sum(matrices[image][k]) for image in drawn)
        predicted = sum(row[k] for image in drawn for row in matrices[image])
        union = true + predicted - right
        if union and name in (None, own):
            shares.append(Fraction(right, union))
    return float(100 * sum(shares) / len(shares)) if shares else math.nan


def enumerated(
    own: Sequence[Matrices],
    others: Sequence[Matrices],
    blocks: Sequence[Sequence[str]],
    name: str | None,
) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of all equally likely draws of blocks."""
    values = []
    for draw in itertools.product(blocks, repeat=len(blocks)):
        drawn = [image for block in draw for image in block]
        a, b = (
            np.mean([iou_by_hand(matrices, drawn, name) for matrices in side])
            for side in (own, others)
        )
        values.append(a - b)
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


@pytest.mark.parametrize(("num_own", "num_others"), [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize(
    ("pattern", "blocks"),
    [(None, [["a/0"], ["a/1"], ["b/0"]]), ("^(.)/", [["a/0", "a/1"], ["b/0"]])],
)
def test_intervals_are_those_of_all_resamples(
    num_own: int, num_others: int, pattern: str | None, blocks: list[list[str]]
) -> None:
    own = [noisy(seed) for seed in range(num_own)]
    others = [noisy(10 + seed) for seed in range(num_others)]
    found = group_difference(
        group_of("own", own), group_of("others", others), "harbour_val", pattern
    )
    assert found is not None
    every = [image for block in blocks for image in block]
    for name, difference in [(None, found.mean), ("quay", found.by_class["quay"])]:
        means = [
            np.mean([iou_by_hand(matrices, every, name) for matrices in side])
            for side in (own, others)
        ]
        assert difference.points == pytest.approx(means[0] - means[1])
        # 27 (or 4) values of at least 1/27 (1/4) each: no percentile lies between two of them.
        assert difference.interval == pytest.approx(enumerated(own, others, blocks, name))
    assert math.isnan(found.by_class["ship"].points)
    assert str(found.by_class["ship"]) == "–"


def test_without_counts_of_images_there_is_no_interval() -> None:
    own, others = group_of("own", [noisy(0)], counted=False), group_of("others", [noisy(1)])
    found = group_difference(own, others, "harbour_val")
    assert found is not None
    assert found.mean.interval is None
    assert found.mean.side == 0
    assert group_difference(own, others, "elsewhere") is None


def test_a_single_block_has_no_interval_and_no_side() -> None:
    found = group_difference(
        group_of("own", [noisy(0)]), group_of("others", [noisy(1)]), "harbour_val", "/"
    )
    assert found is not None
    for difference in (found.mean, *found.by_class.values()):
        assert difference.interval is None
        assert difference.side == 0
    assert found.mean.points != 0


def test_scores_of_other_images_are_no_pair() -> None:
    own = {f"x{name}": matrix for name, matrix in noisy(0).items()}
    with pytest.raises(UserError, match="other images"):
        group_difference(group_of("own", [own]), group_of("others", [noisy(1)]), "harbour_val")


@pytest.mark.parametrize(
    ("difference", "side", "text"),
    [
        (Difference(2.0, (1.0, 3.0)), 1, "+2.0 [+1.0, +3.0]"),
        (Difference(-2.0, (-3.0, -1.0)), -1, "-2.0 [-3.0, -1.0]"),
        (Difference(2.0, (-0.04, 3.0)), 0, "+2.0 [0.0, +3.0]"),
        (Difference(2.0, (1.0, 3.0), seed_error=1.5), 0, "+2.0 [+1.0, +3.0]"),
        (Difference(0.0, (0.0, 0.0)), 0, "0.0"),
        (Difference(2.0), 0, "+2.0"),
    ],
)
def test_a_side_needs_both_images_and_seeds(difference: Difference, side: int, text: str) -> None:
    assert difference.side == side
    assert str(difference) == text


def test_the_error_over_seeds_by_hand() -> None:
    a, b = [noisy(0), noisy(1)], [noisy(2), noisy(3), noisy(4)]
    found = group_difference(group_of("a", a), group_of("b", b), "harbour_val")
    assert found is not None
    spreads = [
        np.std([iou_by_hand(m, list(m), None) for m in side], ddof=1) ** 2 / len(side)
        for side in (a, b)
    ]
    assert found.mean.seed_error == pytest.approx(sum(spreads) ** 0.5)


def test_spread_is_mean_and_sample_deviation_of_what_is_there() -> None:
    found = spread([0.1, math.nan, 0.3])
    assert found == pytest.approx(Spread(20.0, np.std([10, 30], ddof=1)))
    assert str(found) == "20.0 ± 14.1"
    assert spread([0.5]) == Spread(50.0, None)
    assert spread([math.nan]) is None


def test_image_scores_leave_out_what_nobody_labelled() -> None:
    scores: Scores = scores_of({"a": [[2, 2, 0], [0, 0, 0], [0, 0, 0]], "b": [[0] * 3] * 3})
    score = Score("harbour_val", 1, scores.iou, scores.mean_iou, {}, entry_of(scores))
    # Of a, quay has 2 / 4, water 0 / 2 (predicted, not there), ship is nowhere.
    assert score.image_scores() == {"a": 0.25}
