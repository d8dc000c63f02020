"""The charts of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import EngFormatter, MaxNLocator

from t2sda.report.read import Group
from t2sda.report.scores import Curve, Spread, spread
from t2sda.report.svg import HEAT, INK, NUM_SERIES, ON_HEAT, SERIES, chart, svg_of

MAX_POINTS = 400
"""Of a curve; longer ones are means of neighbours."""
MAX_LETTERS = 24
"""Of a class name beside an axis."""
SHOWN_SHARE = 0.005
"""Of a true class: cells of a confusion matrix below it stay empty."""
NUMBERED_SHARE = 0.1
"""Cells from here on show their number."""
DARK_SHARE = 0.65
"""Cells above it have their number in the color of the ground."""
_DASHES = ("-", "--", ":")


def curve_chart(
    groups: Sequence[Group],
    metric: str,
    label: str,
    *,
    percent: bool = False,
    most_points: int = MAX_POINTS,
) -> str:
    """A metric over the iterations: every run thin, the mean of each group strong.

    Args:
        groups: of the report, in the order of their colors.
        metric: name in the runs' curves.
        label: for the screen reader.
        percent: whether shares of 1 are meant.
        most_points: see `thinned`.
    """
    factor = 100 if percent else 1
    with chart(4.3, 2.7) as (figure, axes):
        for index, group in enumerate(groups):
            curves = [run.curves[metric] for run in group.runs if metric in run.curves]
            look = {"color": SERIES[index % NUM_SERIES], "linestyle": _dash(index)}
            if len(curves) == 1:
                _draw(axes, factor, thinned(curves[0], most_points), linewidth=2, **look)
            elif curves:
                for curve in curves:
                    points = thinned(curve, most_points)
                    _draw(axes, factor, points, linewidth=0.8, alpha=0.45, **look)
                _draw(axes, factor, thinned(mean_curve(curves), most_points), linewidth=2.2, **look)
        if metric == "lr":
            axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("iteration")
        axes.margins(x=0.02)
        axes.set_xlim(left=0)
        return svg_of(figure, label)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over the runs at the iterations that all of them have."""
    by_run = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*(set(values) for values in by_run)))
    return [(at, float(np.mean([values[at] for values in by_run]))) for at in shared]


def thinned(curve: Curve, most: int = MAX_POINTS) -> np.ndarray:
    """(N, 2) iterations and values, at most `most` of them: means of as many neighbours each."""
    points = np.array(curve, dtype=np.float64).reshape(-1, 2)
    size = -(-len(points) // most)
    starts = range(0, len(points), max(size, 1))
    return np.array([points[at : at + size].mean(axis=0) for at in starts]).reshape(-1, 2)


def bar_chart(
    groups: Sequence[Group], dataset: str, paper: Mapping[str, Mapping[str, float]]
) -> str:
    """IoU of every class: a bar for each group with its standard deviation, the paper as diamonds.

    Args:
        groups: of the report, in the order of their colors.
        dataset: whose scores.
        paper: by the name of a group, IoU in percent by class.
    """
    names = class_names(groups, dataset)
    thickness = 0.8 / len(groups)
    row_height = max(0.13 * len(groups) + 0.08, 0.24)
    with chart(5.0, 0.7 + len(names) * row_height) as (figure, axes):
        for index, group in enumerate(groups):
            places = np.arange(len(names)) - 0.4 + (index + 0.5) * thickness
            found = [spread(score.iou[name] for score in group.scores(dataset)) for name in names]
            _bars(axes, places, found, thickness, SERIES[index % NUM_SERIES])
            of_paper = [paper.get(group.name, {}).get(name, np.nan) for name in names]
            axes.plot(of_paper, places, "D", markerfacecolor="none", markeredgecolor=INK, ms=3.6)
        axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("IoU, %")
        return svg_of(figure, f"IoU of every class on {dataset}; the table has the numbers")


def confusion_chart(confusion: np.ndarray, names: Sequence[str], label: str) -> str:
    """Where the pixels of each true class went, in percent of its row.

    Args:
        confusion: (C, C) counts, rows are the truth.
        names: of the classes.
        label: for the screen reader.
    """
    shares = np.nan_to_num(row_shares(confusion))
    labels = [_shortened(name) for name in names]
    ticks = np.arange(len(names)) + 0.5
    side = 1.3 + 0.235 * len(names)
    heat = LinearSegmentedColormap.from_list("heat", [(*to_rgb(HEAT), a) for a in (0.05, 1.0)])
    with chart(side, side) as (figure, axes):
        shown = np.ma.masked_less(shares, SHOWN_SHARE)
        axes.pcolormesh(shown, cmap=heat, vmin=0, vmax=1, edgecolors="none")
        for row, column in np.argwhere(shares >= NUMBERED_SHARE):
            share = shares[row, column]
            color = ON_HEAT if share > DARK_SHARE else INK
            place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
            axes.text(column + 0.5, row + 0.52, f"{100 * share:.0f}", color=color, **place)
        axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
        axes.set_yticks(ticks, labels, fontsize=8)
        axes.set_xlim(0, len(names))
        axes.set_ylim(len(names), 0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_aspect("equal")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        return svg_of(figure, label)


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """(C, C) share of each true class; rows of classes that are not there are NaN."""
    totals = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)


def class_names(groups: Sequence[Group], dataset: str) -> list[str]:
    """Of the first score on the dataset; all have the same."""
    return list(next(score.iou for group in groups for score in group.scores(dataset)))


def _dash(index: int) -> str:
    return _DASHES[index // NUM_SERIES % len(_DASHES)]


def _draw(axes: Axes, factor: float, points: np.ndarray, **look: Any) -> None:
    marker = "o" if len(points) < 8 else ""
    axes.plot(points[:, 0], factor * points[:, 1], marker=marker, markersize=3.5, **look)


def _bars(
    axes: Axes,
    places: np.ndarray,
    found: Sequence[Spread | None],
    thickness: float,
    color: str,
) -> None:
    """Bars with whiskers, where there is a mean."""
    known = [(place, item) for place, item in zip(places, found, strict=True) if item is not None]
    axes.barh(
        [place for place, _ in known],
        [item.mean for _, item in known],
        0.92 * thickness,
        color=color,
    )
    spreads = [(place, item.mean, item.std) for place, item in known if item.std]
    if spreads:
        rows, means, stds = zip(*spreads, strict=True)
        look: dict[str, Any] = {"ecolor": INK, "elinewidth": 0.9, "capsize": 1.6}
        axes.errorbar(means, rows, xerr=stds, fmt="none", **look)


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"
