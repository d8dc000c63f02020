"""How far a group of runs is from another one, and how sure that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from t2sda.evaluation.bootstrap import (
    block_counts,
    block_draws,
    blocks_of,
    check_same_images,
    differences,
    interval_of,
)
from t2sda.evaluation.entries import Scores
from t2sda.report.read import Group
from t2sda.report.scores import Score, spread


@dataclass(frozen=True)
class Difference:
    """Of two means over runs, in points (percent of IoU).

    Attributes:
        points: the group's less the reference's; NaN where one has none.
        interval: what 95 % of the resampled image sets lie between; None where counts of single
            images are missing, or all images are one block.
        seed_error: standard error of the difference over the seeds; 0 for single runs.
    """

    points: float
    interval: tuple[float, float] | None = None
    seed_error: float = 0.0

    @property
    def side(self) -> int:
        """1 or -1 where neither other images nor other seeds would likely change the sign; else 0.

        The whole interval is on that side of 0, and so are two standard errors over the seeds.
        """
        if self.interval is None or abs(self.points) <= 2 * self.seed_error:
            return 0
        return (self.interval[0] > 0) - (self.interval[1] < 0)

    def __str__(self) -> str:
        if math.isnan(self.points):
            return "–"
        if self.interval is None:
            return _signed(self.points)
        if self.interval == (0, 0):  # all of them are equal: an interval says no more
            return _signed(self.points)
        return f"{_signed(self.points)} [{', '.join(map(_signed, self.interval))}]"


@dataclass(frozen=True)
class GroupDifference:
    """A group less the reference on one dataset.

    Attributes:
        mean: of the mean IoU.
        by_class: of every class or class group.
    """

    mean: Difference
    by_class: dict[str, Difference] = field(default_factory=dict)


def group_difference(
    group: Group, reference: Group, dataset: str, blocks: str | None = None
) -> GroupDifference | None:
    """Differences of the means over the runs, each with its interval.

    Images (or blocks of them) are drawn with replacement, the same for every run; the runs are as
    they are, so the interval says nothing about other seeds.

    Args:
        group, reference: of the report.
        dataset: that both were scored on.
        blocks: see `t2sda.evaluation.bootstrap.blocks_of`.
    Returns:
        None if one of them was not scored on the dataset.
    Raises:
        UserError: if they were scored on different images, or the pattern does not fit.
    """
    own, others = group.scores(dataset), reference.scores(dataset)
    if not own or not others:
        return None
    kept = [None, *own[0].iou]
    entries = [[score.entry for score in scores] for scores in (own, others)]
    counted = [[entry.scores for entry in found if entry is not None] for found in entries]
    intervals: list[tuple[float, float] | None] = [None] * len(kept)
    if len(counted[0]) == len(own) and len(counted[1]) == len(others):
        intervals = _intervals(counted[0], counted[1], len(kept) - 1, blocks)
    found = [
        _difference(_shares(own, name), _shares(others, name), interval)
        for name, interval in zip(kept, intervals, strict=True)
    ]
    return GroupDifference(found[0], dict(zip(own[0].iou, found[1:], strict=True)))


def _difference(
    own: Sequence[float], others: Sequence[float], interval: tuple[float, float] | None
) -> Difference:
    a, b = spread(own), spread(others)
    if a is None or b is None:
        return Difference(math.nan)
    error = math.hypot(
        *((s.std or 0.0) / math.sqrt(n) for s, n in ((a, len(own)), (b, len(others))))
    )
    return Difference(a.mean - b.mean, interval, error)


def _intervals(
    own: Sequence[Scores], others: Sequence[Scores], num_classes: int, pattern: str | None
) -> list[tuple[float, float] | None]:
    """Of the mean IoU, then of every class, in points; None where there is none."""
    for scores in (*own, *others):
        check_same_images(scores, own[0])
    blocks = blocks_of([image.name for image in own[0].images], pattern)
    num_blocks = int(blocks.max()) + 1
    draws = block_draws(num_blocks)
    ours, theirs = ([block_counts(scores, blocks) for scores in side] for side in (own, others))
    # The mean over all pairs of runs is the difference of the two means.
    pairs = list(itertools.product(ours, theirs))
    if len(ours) == len(theirs):
        pairs = list(zip(ours, theirs, strict=True))  # as is the mean over these, for less
    counts = [np.stack(pair) for pair in pairs]
    chosen = [slice(None), *(slice(k, k + 1) for k in range(num_classes))]
    drawn = [
        np.mean([differences(pair[:, :, classes], draws) for pair in counts], axis=0)
        for classes in chosen
    ]
    intervals = [interval_of(100 * of_class, num_blocks) for of_class in drawn]
    return [None if math.isnan(low) else (low, high) for low, high in intervals]


def _shares(scores: Sequence[Score], name: str | None) -> list[float]:
    """IoU of a class, or mean IoU, of those runs that have one."""
    shares = [score.mean_iou if name is None else score.iou[name] for score in scores]
    return [share for share in shares if not math.isnan(share)]


def _signed(points: float) -> str:
    text = f"{points:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
