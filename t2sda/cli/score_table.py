"""Scores as tables in a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from t2sda.evaluation.bootstrap import Difference
from t2sda.evaluation.entries import Scores

Rows = dict[str, float]


def print_scores(
    console: Console,
    columns: Mapping[str, Scores],
    differences: Mapping[str, Difference] | None = None,
) -> None:
    """A table of scores on one dataset: classes in rows, models in columns.

    Args:
        console: where to.
        columns: by the model's name; all of one dataset.
        differences: of columns to the first, by name.
    """
    baseline = next(iter(columns))
    for line in heading(columns):
        console.print(line, highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("class")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    with_difference = len(columns) == 2 and bool(differences)
    if with_difference:
        table.add_column("difference", justify="right")
    for rows_of in (class_rows, mean_rows, further_rows):
        _add_rows(table, [rows_of(own) for own in columns.values()], with_difference)
        table.add_section()
    console.print(table)
    for name, difference in (differences or {}).items():
        text = f"{name} - {baseline}: {difference_text(difference)}"
        console.print(text, highlight=False, soft_wrap=True)
    for name, scores in columns.items():
        if absent := absent_classes(scores):
            text = f"{name}: not there, left out of the mean: {', '.join(absent)}"
            console.print(text, highlight=False, soft_wrap=True)


def heading(columns: Mapping[str, Scores]) -> list[str]:
    """Dataset, number of images, and how they were seen: by every model, where it was not alike."""
    first, *others = columns.values()
    images = f"{first.dataset}: {first.num_images} images"
    if all(other.protocol == first.protocol for other in others):
        return [f"{images}, {first.protocol}; IoU in %"]
    seen = [f"{name}: {scores.protocol}" for name, scores in columns.items()]
    return [f"{images}, seen in different ways, so differences may come from that; IoU in %", *seen]


def class_rows(scores: Scores) -> Rows:
    """IoU of every class that is reported."""
    return scores.reported.iou


def mean_rows(scores: Scores) -> Rows:
    """Means over classes: of all, of the named subsets, of head and tail."""
    return {"mIoU": scores.reported.mean_iou, **scores.further_means}


def further_rows(scores: Scores) -> Rows:
    """What is no mean IoU."""
    rows = {"pixel accuracy": scores.accuracy}
    if scores.boundary_iou is not None:
        rows["boundary mIoU"] = scores.boundary_iou.mean_iou
    if scores.calibration is not None:
        rows["calibration error"] = scores.calibration.ece
    return rows


def absent_classes(scores: Scores) -> list[str]:
    """Classes that are reported, but neither there nor predicted."""
    return [name for name, iou in scores.reported.iou.items() if math.isnan(iou)]


def difference_text(difference: Difference) -> str:
    """For example: mIoU +1.2 (95 % of resamples of 8 blocks: -0.3 to +2.9)."""
    value, low, high = (
        f"{100 * share:+.1f}" for share in (difference.value, difference.low, difference.high)
    )
    if difference.num_blocks == 1:
        return f"mIoU {value} (no interval: all images are one block)"
    return f"mIoU {value} (95 % of resamples of {difference.num_blocks} blocks: {low} to {high})"


def percent(share: float | None) -> str:
    """Of a class that is not there: no number."""
    if share is None:
        return ""
    return "not there" if math.isnan(share) else f"{100 * share:.1f}"


def _add_rows(table: Table, columns: Sequence[Rows], with_difference: bool) -> None:
    for name in dict.fromkeys(key for own in columns for key in own):
        shares = [own.get(name) for own in columns]
        change = [_change(shares[1], shares[0])] if with_difference else []
        table.add_row(name, *map(percent, shares), *change)


def _change(share: float | None, baseline: float | None) -> str:
    if share is None or baseline is None or math.isnan(share - baseline):
        return ""
    return f"{100 * (share - baseline):+.1f}"
