"""The page: one HTML file that needs no other and no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

import t2sda
from t2sda.config import SCHEMA
from t2sda.evaluation.entries import Entry
from t2sda.report.differences import Difference, class_difference, mean_difference
from t2sda.report.figures import (
    NUM_SERIES,
    bar_chart,
    class_names,
    confusion_chart,
    curve_chart,
    row_shares,
)
from t2sda.report.gallery import Gallery
from t2sda.report.paper import PaperRow, paper_row
from t2sda.report.read import PER_RUN, Group, Run, plain
from t2sda.report.scores import PREFIX, spread

MAX_FIGURE_BYTES = 400_000
"""Of an SVG of `analyze`; of a larger one the PNG beside it is taken."""
NOWHERE = "–"
MOST_CONFUSED = 3
FEW_PIXELS = 0.05
"""Share of a class that is worth naming as confused with another."""

Cell = dict[str, Any]


def render(groups: Sequence[Group], gallery: Gallery) -> str:
    """The page as HTML.

    Args:
        groups: the first one is what the others are compared with.
        gallery: of the same groups.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("template.html").render(**_content(groups, gallery))


def _content(groups: Sequence[Group], gallery: Gallery) -> dict[str, Any]:
    """What the template shows."""
    names = _in_order(name for group in groups for run in group.runs for name in run.scores)
    datasets = [_dataset(groups, name) for name in names]
    curves, more_curves = _curves(groups)
    analysis = [item for group in groups for run in group.runs for item in _analysis(run)]
    num_runs = sum(len(group.runs) for group in groups)
    entries = _entries(groups)
    shown = {
        "summary": "Scores",
        "runs": "Training",
        **({"curves": "Curves"} if curves or more_curves else {}),
        **({"classes": "Classes"} if datasets else {}),
        **({"confusion": "Confusion"} if any(item["matrices"] for item in datasets) else {}),
        **({"analysis": "Analysis"} if analysis else {}),
        "gallery": "Images",
        **({"entries": "All scores"} if entries["rows"] else {}),
    }
    return {
        "title": " and ".join(group.name for group in groups)
        if len(groups) < 4
        else f"{num_runs} runs",
        "subtitle": f"{_count(num_runs, 'run')} in {_count(len(groups), 'group')}; "
        f"written by t2sda {t2sda.__version__} on {datetime.now():%d %B %Y}",
        "sections": list(shown.items()),
        "notes": [
            f"{run.name}: {note}" for group in groups for run in group.runs for note in run.notes
        ],
        "groups": [
            {
                "name": group.name,
                "color": index % NUM_SERIES,
                "runs": group.runs,
                "changed": _changed(group),
            }
            for index, group in enumerate(groups)
        ],
        "reference": groups[0].name,
        "seeded": any(len(group.runs) > 1 for group in groups),
        "datasets": datasets,
        "runs": _runs(groups),
        "differing": _differing(groups),
        "curves": curves,
        "more_curves": more_curves,
        "analysis": analysis,
        "gallery": _gallery(groups, gallery),
        "entries": entries,
        "footer": "IoU in percent. ± is the sample standard deviation over the runs of a group. "
        "Brackets hold 95 % of a paired block bootstrap over the images; a difference is colored "
        "where they do not hold 0. A class that is neither in the labels nor predicted has no IoU "
        "and is left out of the means.",
    }


def _runs(groups: Sequence[Group]) -> dict[str, Any]:
    facts = _in_order(what for group in groups for run in group.runs for what, _ in run.facts)
    rows = []
    for group in groups:
        for run in group.runs:
            known = dict(run.facts)
            steps = f"{run.iteration:,} of {run.settings.get('SOLVER.MAX_ITER', '?'):,}"
            rows.append(
                [run.name, group.name, run.seed, steps, *(known.get(f, NOWHERE) for f in facts)]
            )
    return {"columns": ["run", "group", "seed", "iterations", *facts], "rows": rows}


def _differing(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    settings = [group.runs[0].settings for group in groups]
    keys = _in_order(key for own in settings for key in own if key not in PER_RUN)
    rows = [(key, [_shown_value(own.get(key, NOWHERE)) for own in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _changed(group: Group) -> list[tuple[str, str, str]]:
    """(setting, default, value) of what is not the default; a plugin's settings may have none."""
    rows = []
    for key, value in group.runs[0].settings.items():
        field = SCHEMA.fields.get(key)
        default = plain(field.default) if field is not None else NOWHERE
        if key not in PER_RUN and value != default:
            rows.append((key, _shown_value(default), _shown_value(value)))
    return rows


def _curves(groups: Sequence[Group]) -> tuple[list[Cell], list[Cell]]:
    """Losses, learning rate and scores; then what else was logged."""
    metrics = _in_order(name for group in groups for run in group.runs for name in run.curves)
    scores = [name for name in metrics if name.startswith(PREFIX) and name.endswith("/mIoU")]
    first = [name for name in metrics if name.startswith("loss")]
    first += [name for name in metrics if name == "lr" or name.startswith("lr/")]
    rest = [name for name in metrics if name not in first and not name.startswith(PREFIX)]
    charts = [
        {
            "title": f"mIoU on {name.removeprefix(PREFIX).removesuffix('/mIoU')}, %",
            "svg": curve_chart(groups, name, f"{name} over the iterations", percent=True),
        }
        for name in scores
    ]
    return charts + [_curve(groups, name) for name in first], [_curve(groups, n) for n in rest]


def _curve(groups: Sequence[Group], name: str) -> Cell:
    title = {"lr": "learning rate"}.get(name, name)
    return {"title": title, "svg": curve_chart(groups, name, f"{title} over the iterations")}


def _dataset(groups: Sequence[Group], name: str) -> dict[str, Any]:
    scored = [(index, group) for index, group in enumerate(groups) if group.scores(name)]
    paper = {
        group.name: row
        for _, group in scored
        if (row := paper_row(group.runs[0].settings, name)) is not None
    }
    entries = [score.entry for _, group in scored for score in group.scores(name) if score.entry]
    return {
        "name": name,
        "num_images": max((entry.scores.num_images for entry in entries), default=0),
        "cards": [_card(groups, index, name, paper.get(group.name)) for index, group in scored],
        "extremes": _extremes(groups, name),
        "bars": bar_chart(groups, name, {key: row.iou for key, row in paper.items()}),
        "paper": bool(paper),
        "table": _class_table([group for _, group in scored], name, paper),
        "matrices": [
            matrix for index, group in scored if (matrix := _matrix(group, index, name)) is not None
        ],
    }


def _card(groups: Sequence[Group], index: int, dataset: str, paper: PaperRow | None) -> Cell:
    group = groups[index]
    scores = group.scores(dataset)
    mean = spread(score.mean_iou for score in scores)
    further = [
        f"{name} {item}"
        for name in scores[0].further
        if (item := spread(score.further.get(name, math.nan) for score in scores)) is not None
    ]
    iterations = _in_order(f"{score.iteration:,}" for score in scores)
    different = mean_difference(groups[0], group, dataset) if index else None
    return {
        "name": group.name,
        "color": index % NUM_SERIES,
        "mean": NOWHERE if mean is None else f"{mean.mean:.1f}",
        "std": "" if mean is None or mean.std is None else f"{mean.std:.1f}",
        "difference": different and _difference_cell(different),
        "further": "; ".join([*further, f"after {' and '.join(iterations)} iterations"]),
        "paper": paper and {"method": paper.method, "mean": f"{paper.mean_iou:.1f}"},
    }


def _extremes(groups: Sequence[Group], dataset: str) -> str:
    """The best and the worst classes of every group, in words."""
    texts = []
    for group in groups:
        scores = group.scores(dataset)
        if not scores:
            continue
        means = {
            name: item.mean
            for name in scores[0].iou
            if (item := spread(score.iou[name] for score in scores)) is not None
        }
        ranked = sorted(means, key=lambda name: -means[name])
        best, worst = ranked[:3], ranked[:-4:-1]
        texts.append(f"{group.name}: best {_listed(best, means)}; worst {_listed(worst, means)}.")
    return " ".join(texts)


def _class_table(
    groups: Sequence[Group], dataset: str, paper: Mapping[str, PaperRow]
) -> dict[str, Any]:
    """A row for each class; groups, their differences to the first, and the paper in columns."""
    names = class_names(groups, dataset)
    columns = [group.name for group in groups]
    columns += [f"{group.name} − {groups[0].name}" for group in groups[1:]]
    columns += [f"paper: {paper[group.name].method}" for group in groups if group.name in paper]
    scores = [group.scores(dataset) for group in groups]
    rows = []
    for name in names:
        cells = [_spread_cell([score.iou[name] for score in own]) for own in scores]
        cells += [_difference_cell(class_difference(scores[0], own, name)) for own in scores[1:]]
        cells += [
            _paper_cell(paper[group.name].iou.get(name, math.nan))
            for group in groups
            if group.name in paper
        ]
        rows.append({"name": name, "cells": cells})
    foot = [_spread_cell([score.mean_iou for score in own]) for own in scores]
    foot += [_difference_cell(mean_difference(groups[0], group, dataset)) for group in groups[1:]]
    foot += [_paper_cell(paper[group.name].mean_iou) for group in groups if group.name in paper]
    return {"columns": columns, "rows": rows, "foot": [{"name": "mean", "cells": foot}]}


def _matrix(group: Group, index: int, dataset: str) -> Cell | None:
    entries = [score.entry for score in group.scores(dataset) if score.entry is not None]
    if not entries:
        return None
    names = entries[0].scores.classes
    confusion = sum(np.array(entry.scores.confusion, dtype=np.int64) for entry in entries)
    label = f"Confusion matrix of {group.name} on {dataset}"
    return {
        "name": group.name,
        "color": index % NUM_SERIES,
        "svg": confusion_chart(confusion, names, label),
        "text": _most_confused(confusion, names),
    }


def _most_confused(confusion: np.ndarray, names: Sequence[str]) -> str:
    """The largest shares of true classes that went to another one, in words."""
    shares = np.nan_to_num(row_shares(confusion))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None)[:MOST_CONFUSED]
    pairs = [np.unravel_index(at, shares.shape) for at in order if shares.flat[at] >= FEW_PIXELS]
    texts = [f"{100 * shares[i, j]:.0f} % of {names[i]} as {names[j]}" for i, j in pairs]
    return f"Most confused: {', '.join(texts)}." if texts else "No class is much confused."


def _analysis(run: Run) -> list[Cell]:
    items = []
    for path in run.figures:
        png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
        small = svg in run.figures and svg.stat().st_size <= MAX_FIGURE_BYTES
        if path == (svg if small or png not in run.figures else png):
            kind = "svg+xml" if path.suffix == ".svg" else "png"
            content = base64.b64encode(path.read_bytes()).decode()
            title = f"{run.name}: {path.stem.replace('_', ' ')}"
            items.append({"title": title, "uri": f"data:image/{kind};base64,{content}"})
    return items


def _gallery(groups: Sequence[Group], gallery: Gallery) -> dict[str, Any]:
    columns = [group.runs[0].name for group in groups]
    images = [
        {
            "dataset": shown.choice.dataset,
            "name": shown.choice.name,
            "reason": shown.choice.reason,
            "image": shown.image,
            "truth": shown.truth,
            "predictions": shown.predictions,
            "mistakes": shown.mistakes,
            "scores": shown.scores,
        }
        for shown in gallery.images
    ]
    runs = [run.name for group in groups for run in group.runs]
    return {
        "images": images,
        "legend": gallery.legend,
        "left_out": gallery.left_out,
        "columns": columns,
        "data": {"runs": runs, "columns": columns, "images": images},
    }


def _entries(groups: Sequence[Group]) -> dict[str, Any]:
    columns = ["run", "model", "branch", "iteration", "dataset", "protocol", "mIoU, %", "date"]
    rows = [
        [
            run.name,
            entry.model,
            entry.branch or NOWHERE,
            NOWHERE if entry.iteration is None else entry.iteration,
            entry.scores.dataset,
            _protocol(entry),
            _percent(entry.scores.reported.mean_iou),
            entry.date[:16].replace("T", " "),
        ]
        for group in groups
        for run in group.runs
        for entry in run.entries
    ]
    return {"columns": columns, "rows": rows}


def _protocol(entry: Entry) -> str:
    protocol = entry.scores.protocol
    parts = [
        "sliding window" if protocol.window else "whole image",
        f"within {_size(protocol.image_size)}" if protocol.image_size else "as stored",
        *([f"window {_size(protocol.window)}"] if protocol.window else []),
        *(["flip"] if protocol.flip else []),
        *([f"scales {list(protocol.scales)}"] if protocol.scales != (1.0,) else []),
    ]
    return ", ".join(parts)


def _spread_cell(shares: Sequence[float]) -> Cell:
    item = spread(shares)
    return {
        "text": NOWHERE if item is None else str(item),
        "value": "" if item is None else f"{item.mean:.4f}",
        "paper": False,
    }


def _difference_cell(item: Difference | None) -> Cell:
    if item is None:
        return {"text": NOWHERE, "value": "", "paper": False, "side": 0}
    return {
        "text": str(item),
        "value": f"{item.points:.4f}",
        "paper": False,
        "side": item.side,
    }


def _paper_cell(percent: float) -> Cell:
    missing = math.isnan(percent)
    return {
        "text": NOWHERE if missing else f"{percent:.1f}",
        "value": "" if missing else percent,
        "paper": True,
    }


def _shown_value(value: Any) -> str:
    return value if value == NOWHERE else repr(value) if isinstance(value, str) else str(value)


def _listed(names: Sequence[str], means: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {means[name]:.1f}" for name in names)


def _percent(share: float) -> str:
    return NOWHERE if math.isnan(share) else f"{100 * share:.1f}"


def _size(size: Sequence[int]) -> str:
    return " × ".join(map(str, size))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _in_order(names: Any) -> list[str]:
    """Each name once, in the order in which they come."""
    return list(dict.fromkeys(names))
