"""How far a group of runs is from another one, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from t2sda.report.read import Group
from t2sda.report.scores import Score


@dataclass(frozen=True)
class Difference:
    """Of two means over runs, in points (percent of IoU).

    Attributes:
        points: the second minus the first.
        interval: that holds 95 % of the block bootstrap; None where counts of single images are
            missing.
    """

    points: float
    interval: tuple[float, float] | None = None

    @property
    def side(self) -> int:
        """1 or -1 where the interval is above or below 0; else 0."""
        if self.interval is None:
            return 0
        return (self.interval[0] > 0) - (self.interval[1] < 0)

    def __str__(self) -> str:
        interval = self.interval
        text = f"{self.points:+.1f}"
        return text if interval is None else f"{text} [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def mean_difference(reference: Group, group: Group, dataset: str) -> Difference | None:
    """Of the mean IoU; None where one of them was not scored on the dataset."""
    a, b = reference.scores(dataset), group.scores(dataset)
    if not a or not b:
        return None
    return Difference(_mean([s.mean_iou for s in b]) - _mean([s.mean_iou for s in a]))


def class_difference(a: Sequence[Score], b: Sequence[Score], name: str) -> Difference | None:
    """Of one class, without an interval; None where it is nowhere."""
    points = _mean([score.iou[name] for score in b]) - _mean([score.iou[name] for score in a])
    return None if math.isnan(points) else Difference(points)


def _mean(shares: Sequence[float]) -> float:
    """In percent, of those that are a number; NaN if none is."""
    known = [100 * share for share in shares if not math.isnan(share)]
    return statistics.fmean(known) if known else math.nan
