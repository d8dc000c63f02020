"""How far a group of runs is from another one, and how sure that is."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from t2sda.evaluation.bootstrap import (
    INTERVAL,
    NUM_RESAMPLES,
    block_counts,
    blocks_of,
    check_same_images,
    differences,
)
from t2sda.evaluation.entries import Scores
from t2sda.report.read import Group
from t2sda.report.scores import Score


@dataclass(frozen=True)
class Difference:
    """Of two means over runs, in points (percent of IoU).

    Attributes:
        points: the group's less the reference's; NaN where one has none.
        interval: what 95 % of the resampled image sets lie between; None where counts of single
            images are missing.
    """

    points: float
    interval: tuple[float, float] | None = None

    @property
    def side(self) -> int:
        """1 or -1 where the whole interval is above or below 0; else 0."""
        if self.interval is None:
            return 0
        return (self.interval[0] > 0) - (self.interval[1] < 0)

    def __str__(self) -> str:
        if math.isnan(self.points):
            return "–"
        text = f"{self.points:+.1f}"
        if self.interval is None:
            return text
        return f"{text} [{self.interval[0]:+.1f}, {self.interval[1]:+.1f}]"


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
    names = list(own[0].iou)
    points = {name: _mean(own, name) - _mean(others, name) for name in names}
    mean = _mean(own) - _mean(others)
    entries = [[score.entry for score in scores] for scores in (own, others)]
    counted = [[entry.scores for entry in found if entry is not None] for found in entries]
    if len(counted[0]) < len(own) or len(counted[1]) < len(others):
        by_class = {name: Difference(value) for name, value in points.items()}
        return GroupDifference(Difference(mean), by_class)
    intervals = _intervals(counted[0], counted[1], len(names), blocks)
    return GroupDifference(
        Difference(mean, intervals[0]),
        {
            name: Difference(points[name], interval)
            for name, interval in zip(names, intervals[1:], strict=True)
        },
    )


def _intervals(
    own: Sequence[Scores], others: Sequence[Scores], num_classes: int, pattern: str | None
) -> list[tuple[float, float] | None]:
    """Of the mean IoU, then of every class, in points; None for a class that is nowhere."""
    for scores in (*own, *others):
        check_same_images(scores, own[0])
    blocks = blocks_of([image.name for image in own[0].images], pattern)
    num_blocks = int(blocks.max()) + 1
    draws = np.random.default_rng(0).multinomial(
        num_blocks, np.full(num_blocks, 1 / num_blocks), size=NUM_RESAMPLES
    )
    ours, theirs = ([block_counts(scores, blocks) for scores in side] for side in (own, others))
    # The mean over all pairs of runs is the difference of the two means.
    pairs = list(itertools.product(ours, theirs))
    if len(ours) == len(theirs):
        pairs = list(zip(ours, theirs, strict=True))  # as is the mean over these, for less
    counts = [np.stack(pair) for pair in pairs]
    chosen = [slice(None), *(slice(k, k + 1) for k in range(num_classes))]
    return [
        _interval(np.mean([differences(pair[:, :, classes], draws) for pair in counts], axis=0))
        for classes in chosen
    ]


def _interval(drawn: np.ndarray) -> tuple[float, float] | None:
    if np.isnan(drawn).all():
        return None
    outside = (1 - INTERVAL) / 2
    low, high = 100 * np.nanquantile(drawn, [outside, 1 - outside])
    return float(low), float(high)


def _mean(scores: Sequence[Score], name: str | None = None) -> float:
    """IoU of a class, or mean IoU, over the runs, in percent; NaN where no run has one."""
    shares = [score.mean_iou if name is None else score.iou[name] for score in scores]
    known = [100 * share for share in shares if not math.isnan(share)]
    return statistics.fmean(known) if known else math.nan
