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
from t2sda.evaluation.confusion import ConfusionMatrix
from t2sda.report.differences import GroupDifference, group_difference
from t2sda.report.figures import (
    MAX_POINTS,
    bar_chart,
    confusion_chart,
    curve_chart,
    row_shares,
)
from t2sda.report.gallery import Gallery
from t2sda.report.paper import PaperRow, paper_row
from t2sda.report.read import PER_RUN, Group
from t2sda.report.scores import PREFIX, spread
from t2sda.report.svg import NUM_SERIES
from t2sda.report.tables import (
    Cell,
    changed_settings,
    class_table,
    difference_cell,
    entries_table,
    in_order,
    runs_table,
)
from t2sda.training.folder import NOWHERE, differing_settings

MAX_FIGURE_BYTES = 400_000
"""Of an SVG of `analyze`; of a larger one the PNG beside it is taken."""
MAX_SMALL_POINTS = 60
"""Of curves that are looked at when somebody asks for them."""
MAX_TITLE_GROUPS = 3
MOST_CONFUSED = 3
WORTH_NAMING = 0.05
"""Share of a class that went to another one."""


def describe(
    groups: Sequence[Group], blocks: str | None = None, figures: Sequence[Path] = ()
) -> dict[str, Any]:
    """Everything in the page but its images: what `render` takes.

    Args:
        groups: the first one is what the others are compared with.
        blocks: pattern of the images' names, see `t2sda.evaluation.bootstrap.blocks_of`.
        figures: of analyses of several runs; those of single runs are in their folders.
    Raises:
        UserError: if groups were scored on different images of one dataset, or the pattern does
            not fit.
    """
    names = in_order(name for group in groups for run in group.runs for name in run.scores)
    curves, more_curves = _curves(groups)
    analysis = [_analysis(run.name, run.figures) for group in groups for run in group.runs]
    content = {
        **_heading(groups),
        "datasets": [_dataset(groups, name, blocks) for name in names],
        "runs": runs_table(groups),
        "differing": differing_settings([group.runs[0].settings for group in groups], PER_RUN),
        "curves": curves,
        "more_curves": more_curves,
        "analysis": [item for items in [_analysis("", figures), *analysis] for item in items],
        "entries": entries_table(groups),
        "blocks": blocks,
    }
    unlike = [note for name in names if (note := _unlike_scores(groups, name)) is not None]
    content["notes"] = [*content["notes"], *unlike]
    return {**content, "sections": _sections(content)}


def render(content: Mapping[str, Any], gallery: Gallery) -> str:
    """The page as HTML.

    Args:
        content: of `describe`.
        gallery: of the same groups.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    shown = _gallery(content["runs_of_groups"], gallery)
    return environment.get_template("template.html").render(content, gallery=shown)


def _heading(groups: Sequence[Group]) -> dict[str, Any]:
    runs = [run for group in groups for run in group.runs]
    few = len(groups) <= MAX_TITLE_GROUPS
    return {
        "title": " and ".join(group.name for group in groups) if few else f"{len(runs)} runs",
        "subtitle": f"{_count(len(runs), 'run')} in {_count(len(groups), 'group')}; written by "
        f"t2sda {t2sda.__version__} on {datetime.now():%Y-%m-%d}",
        "notes": [f"{run.name}: {note}" for run in runs for note in run.notes],
        "groups": [
            {
                "name": group.name,
                "color": index % NUM_SERIES,
                "num_runs": len(group.runs),
                "changed": changed_settings(group),
            }
            for index, group in enumerate(groups)
        ],
        "runs_of_groups": [[run.name for run in group.runs] for group in groups],
        "seeded": any(len(group.runs) > 1 for group in groups),
    }


def _unlike_scores(groups: Sequence[Group], dataset: str) -> str | None:
    """Which runs were scored how, where it was not the same way."""
    ways: dict[str, list[str]] = {}
    for run in (run for group in groups for run in group.runs if dataset in run.scores):
        ways.setdefault(run.way_of_scoring(dataset), []).append(run.name)
    if len(ways) < 2:
        return None
    found = "; ".join(f"{way}: {', '.join(names)}" for way, names in ways.items())
    return f"{dataset}: scored in different ways, so differences may come from that: {found}"


def _sections(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(anchor, name) of the sections that the page has."""
    matrices = any(dataset["matrices"] for dataset in content["datasets"])
    there = {
        ("summary", "Scores"): True,
        ("runs", "Training"): True,
        ("curves", "Curves"): content["curves"] or content["more_curves"],
        ("classes", "Classes"): content["datasets"],
        ("confusion", "Confusion"): matrices,
        ("analysis", "Analysis"): content["analysis"],
        ("gallery", "Images"): True,
        ("entries", "All scores"): content["entries"]["rows"],
    }
    return [section for section, is_there in there.items() if is_there]


def _curves(groups: Sequence[Group]) -> tuple[list[Cell], list[Cell]]:
    """Charts of scores, losses and learning rate; then what else was logged, by its kind."""
    metrics = in_order(name for group in groups for run in group.runs for name in run.curves)
    first = [name for name in metrics if name.startswith(PREFIX) and name.endswith("/mIoU")]
    first += [name for name in metrics if name.startswith("loss")]
    first += [name for name in metrics if name.split("/")[0] == "lr"]
    families: dict[str, list[str]] = {}
    for name in metrics:
        if name not in first and not name.startswith(PREFIX):
            # One for each class, such as pseudo_labels/confidence/road, belong together.
            family = name.rpartition("/")[0] if name.count("/") > 1 else ""
            families.setdefault(family, []).append(name)
    more = [
        {
            "title": f"{_count(len(names), 'curve')}: {family or 'what else was logged'}",
            "charts": [_curve(groups, name, MAX_SMALL_POINTS) for name in names],
        }
        for family, names in families.items()
    ]
    return [_curve(groups, name) for name in first], more


def _curve(groups: Sequence[Group], name: str, most_points: int = MAX_POINTS) -> Cell:
    title = "learning rate" if name == "lr" else name
    if is_score := name.startswith(PREFIX):
        title = f"mIoU on {name.removeprefix(PREFIX).removesuffix('/mIoU')}, %"
    label = f"{title}, over the iterations"
    svg = curve_chart(groups, name, label, percent=is_score, most_points=most_points)
    return {"title": title, "svg": svg}


def _dataset(groups: Sequence[Group], name: str, blocks: str | None) -> dict[str, Any]:
    scored = [group for group in groups if group.scores(name)]
    found = {group.name: paper_row(group.runs[0].settings, name) for group in scored}
    paper = {group: row for group, row in found.items() if row is not None}
    pairs = {g.name: group_difference(g, scored[0], name, blocks) for g in scored[1:]}
    differences = {group: pair for group, pair in pairs.items() if pair is not None}
    color = {group.name: index % NUM_SERIES for index, group in enumerate(groups)}
    entries = [score.entry for group in scored for score in group.scores(name) if score.entry]
    return {
        "name": name,
        "reference": scored[0].name,
        "num_images": max((entry.scores.num_images for entry in entries), default=0),
        "cards": [
            {
                "color": color[group.name],
                **_card(group, name, differences.get(group.name), paper.get(group.name)),
            }
            for group in scored
        ],
        "extremes": [_extremes(group, name) for group in scored],
        "bars": bar_chart(groups, name, {group: row.iou for group, row in paper.items()}),
        "paper": bool(paper),
        "table": class_table(scored, name, differences, paper),
        "matrices": [
            {"color": color[group.name], **matrix}
            for group in scored
            if (matrix := _matrix(group, name)) is not None
        ],
    }


def _card(
    group: Group, dataset: str, difference: GroupDifference | None, paper: PaperRow | None
) -> Cell:
    scores = group.scores(dataset)
    mean = spread(score.mean_iou for score in scores)
    further = {
        name: spread(score.further.get(name, math.nan) for score in scores)
        for name in scores[0].further
    }
    iterations = in_order(f"{score.iteration:,}" for score in scores)
    return {
        "name": group.name,
        "mean": NOWHERE if mean is None else f"{mean.mean:.1f}",
        "std": "" if mean is None or mean.std is None else f"{mean.std:.1f}",
        "difference": difference and difference_cell(difference.mean),
        "further": [f"{name} {item}" for name, item in further.items() if item is not None],
        "iterations": " and ".join(iterations),
        "paper": paper and _paper_mean(paper),
    }


def _paper_mean(row: PaperRow) -> str:
    """Of a row; the paper prints no mean where classes are missing."""
    mean = "no mean" if math.isnan(row.mean_iou) else f"{row.mean_iou:.1f} %"
    return f"{row.title}: {mean}"


def _extremes(group: Group, dataset: str) -> Cell:
    """The best and the worst classes."""
    scores = group.scores(dataset)
    spreads = {name: spread(score.iou[name] for score in scores) for name in scores[0].iou}
    means = {name: item.mean for name, item in spreads.items() if item is not None}
    ranked = sorted(means, key=lambda name: -means[name])
    best, worst = (
        ", ".join(f"{name} {means[name]:.1f}" for name in names)
        for names in (ranked[:3], ranked[:-4:-1])
    )
    return {"name": group.name, "best": best, "worst": worst}


def _matrix(group: Group, dataset: str) -> Cell | None:
    """Of all runs of a group together, in the classes that are reported."""
    entries = [score.entry for score in group.scores(dataset) if score.entry is not None]
    if not entries:
        return None
    scores = entries[0].scores
    total = ConfusionMatrix(len(scores.classes))
    for entry in entries:
        total.counts += np.array(entry.scores.confusion, dtype=np.int64)
    if scores.group_classes:
        total = total.merge(list(scores.group_classes.values()))
    confusion, names = total.counts, tuple(scores.reported.iou)
    label = f"Confusion matrix of {group.name} on {dataset}"
    return {
        "name": group.name,
        "svg": confusion_chart(confusion, names, label),
        "text": _most_confused(confusion, names),
    }


def _most_confused(confusion: np.ndarray, names: Sequence[str]) -> str:
    """The largest shares of true classes that went to another one, in words."""
    shares = np.nan_to_num(row_shares(confusion))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [np.unravel_index(at, shares.shape) for at in order if shares.flat[at] >= WORTH_NAMING]
    texts = [f"{100 * shares[i, j]:.0f} % of {names[i]} as {names[j]}" for i, j in pairs]
    return f"Most confused: {', '.join(texts)}." if texts else "No class is much confused."


def _analysis(owner: str, figures: Sequence[Path]) -> list[Cell]:
    """Figures, each once: the SVG, or the PNG where that is smaller by far."""
    items = []
    for path in figures:
        png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
        use_svg = svg in figures and (png not in figures or svg.stat().st_size <= MAX_FIGURE_BYTES)
        if path == (svg if use_svg else png):
            kind = "svg+xml" if use_svg else "png"
            content = base64.b64encode(path.read_bytes()).decode()
            title = path.stem.replace("_", " ")
            items.append(
                {
                    "title": f"{owner}: {title}" if owner else title,
                    "uri": f"data:image/{kind};base64,{content}",
                }
            )
    return items


def _gallery(runs_of_groups: Sequence[Sequence[str]], gallery: Gallery) -> dict[str, Any]:
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
    runs = [run for group in runs_of_groups for run in group]
    columns = [group[0] for group in runs_of_groups]
    return {
        "legend": gallery.legend,
        "left_out": gallery.left_out,
        "data": {"runs": runs, "columns": columns, "images": images},
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
