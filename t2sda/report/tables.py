"""Tables of the page, as plain values that the template writes down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from t2sda.config import SCHEMA
from t2sda.report.differences import Difference, GroupDifference
from t2sda.report.paper import PaperRow
from t2sda.report.read import PER_RUN, Group, plain
from t2sda.report.scores import spread
from t2sda.training.folder import NOWHERE, written

MINUS = "−"

Cell = dict[str, Any]


def runs_table(groups: Sequence[Group]) -> dict[str, Any]:
    """A row for each run; what is the same of all of them stands above."""
    runs = [(group, run) for group in groups for run in group.runs]
    facts = in_order(what for _, run in runs for what, _ in run.facts)
    texts = {what: [dict(run.facts).get(what, NOWHERE) for _, run in runs] for what in facts}
    same = [what for what in facts if len(set(texts[what])) == 1]
    own = [what for what in facts if what not in same]
    rows = [
        [run.name, group.name, run.seed, run.progress, *(texts[what][number] for what in own)]
        for number, (group, run) in enumerate(runs)
    ]
    return {
        "columns": ["run", "group", "seed", "iterations", *own],
        "rows": rows,
        "same": [(what, texts[what][0]) for what in same],
    }


def changed_settings(group: Group) -> list[tuple[str, str, str]]:
    """(setting, default, value) of what is not the default; a plugin's settings may have none."""
    rows = []
    for key, value in group.runs[0].settings.items():
        field = SCHEMA.fields.get(key)
        default = plain(field.default) if field is not None else NOWHERE
        if key not in PER_RUN and value != default:
            rows.append((key, written(default), written(value)))
    return rows


def class_table(
    groups: Sequence[Group],
    dataset: str,
    differences: Mapping[str, GroupDifference],
    paper: Mapping[str, PaperRow],
) -> dict[str, Any]:
    """A row for each class; groups, their differences to the first, and the paper in columns.

    Args:
        groups: that were scored on the dataset.
        dataset: its name.
        differences: by the name of a group.
        paper: by the name of a group.
    """
    scores = {group.name: group.scores(dataset) for group in groups}
    rows = [
        {
            "name": name,
            "cells": [
                *(_mean_cell(score.iou[name] for score in own) for own in scores.values()),
                *(difference_cell(found.by_class[name]) for found in differences.values()),
                *(_paper_cell(row.iou.get(name, math.nan)) for row in paper.values()),
            ],
        }
        for name in next(iter(scores.values()))[0].iou
    ]
    foot = [
        *(_mean_cell(score.mean_iou for score in own) for own in scores.values()),
        *(difference_cell(found.mean) for found in differences.values()),
        *(_paper_cell(row.mean_iou) for row in paper.values()),
    ]
    columns = [
        *scores,
        *(f"{name} {MINUS} {groups[0].name}" for name in differences),
        *(f"paper: {row.title}" for row in paper.values()),
    ]
    return {"columns": columns, "rows": rows, "foot": foot}


def entries_table(groups: Sequence[Group]) -> dict[str, Any]:
    """Everything that was scored, also what no chart shows."""
    columns = ["run", "model", "branch", "iteration", "dataset", "protocol", "mIoU, %", "date"]
    rows = [
        [
            run.name,
            entry.model,
            entry.branch or NOWHERE,
            NOWHERE if entry.iteration is None else entry.iteration,
            entry.scores.dataset,
            str(entry.scores.protocol),
            percent(entry.scores.reported.mean_iou),
            entry.date[:16].replace("T", " "),
        ]
        for group in groups
        for run in group.runs
        for entry in run.entries
    ]
    return {"columns": columns, "rows": rows}


def difference_cell(item: Difference) -> Cell:
    """With the side of 0 that it lies on."""
    value = "" if math.isnan(item.points) else f"{item.points:.4f}"
    return {
        "text": str(item).replace("-", MINUS),
        "value": value,
        "paper": False,
        "side": item.side,
    }


def percent(share: float) -> str:
    """Of a share of 1; a dash for NaN."""
    return NOWHERE if math.isnan(share) else f"{100 * share:.1f}"


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, in the order in which they come."""
    return list(dict.fromkeys(names))


def _mean_cell(shares: Iterable[float]) -> Cell:
    item = spread(shares)
    if item is None:
        return {"text": NOWHERE, "value": "", "paper": False}
    return {"text": str(item), "value": f"{item.mean:.4f}", "paper": False}


def _paper_cell(points: float) -> Cell:
    if math.isnan(points):
        return {"text": NOWHERE, "value": "", "paper": True}
    return {"text": f"{points:.1f}", "value": points, "paper": True}
