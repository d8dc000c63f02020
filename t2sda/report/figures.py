"""Charts as inline SVG whose colors are those of the page, so that one chart suits light and dark.

matplotlib draws them; it knows no CSS variables, so it draws in colors that stand for them.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from t2sda.report.read import Group
from t2sda.report.scores import Curve, spread

NUM_SERIES = 8
"""Colors of the page; further groups begin again, in other dashes."""
INK, FAINT, ON_HEAT, HEAT = "#fe0101", "#fe0102", "#fe0103", "#fe0104"
_SERIES = [f"#fe02{index:02x}" for index in range(NUM_SERIES)]
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    ON_HEAT: "var(--on-heat)",
    HEAT: "var(--heat)",
    **{color: f"var(--series-{index})" for index, color in enumerate(_SERIES)},
}
_STYLE: Any = {  # its keys are one type of a thousand words
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "t2sda",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_DASHES = ("-", "--", ":")
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_DIGITS = re.compile(r"(\.\d\d)\d+")
"""A hundredth of a point is far below a pixel."""
_INVISIBLE = re.compile(r'<path d="[^"]*"(?: clip-path="[^"]*")? style="fill: none"/>')
_SPACE = re.compile(r"(?<=[> ])\s+")
_TAG = re.compile(r"<[^>]*>")
_STYLE_SHEET = re.compile(r"\s*<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
SHOWN_SHARE = 0.005
"""Of a true class: cells of a confusion matrix below it stay empty."""
DARK_SHARE = 0.65
"""Cells above it have their number in the color of the ground."""
MAX_LETTERS = 24
"""Of a class name beside an axis."""
NUMBERED_SHARE = 0.1
"""Cells from here on show their number."""


def curve_chart(groups: Sequence[Group], metric: str, label: str, percent: bool = False) -> str:
    """A metric over the iterations: every run thin, the mean of each group strong.

    Args:
        groups: of the report, in the order of their colors.
        metric: name in the runs' curves.
        label: for the screen reader.
        percent: whether shares of 1 are meant.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(4.3, 2.7)
        factor = 100 if percent else 1
        for index, group in enumerate(groups):
            curves = [run.curves[metric] for run in group.runs if metric in run.curves]
            look = {"color": _SERIES[index % NUM_SERIES], "linestyle": _dash(index)}
            for curve in curves:
                alone = len(curves) == 1
                _draw(
                    axes,
                    curve,
                    factor,
                    linewidth=2 if alone else 0.8,
                    alpha=1 if alone else 0.45,
                    **look,
                )
            if len(curves) > 1:
                _draw(axes, mean_curve(curves), factor, linewidth=2.2, **look)
        if metric == "lr":
            axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.02)
        axes.set_xlim(left=0)
        return _svg(figure, label)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over the runs at the iterations that all of them have."""
    by_run = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*(set(values) for values in by_run)))
    return [(at, float(np.mean([values[at] for values in by_run]))) for at in shared]


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
    with mpl.rc_context(_STYLE):
        height = 0.8 / max(len(groups), 1)
        figure, axes = _figure(5.0, 0.7 + len(names) * max(0.13 * len(groups) + 0.08, 0.24))
        for index, group in enumerate(groups):
            found = [
                (row, spread(score.iou[name] for score in group.scores(dataset)))
                for row, name in enumerate(names)
            ]
            known = [(row - 0.4 + (index + 0.5) * height, item) for row, item in found if item]
            rows = [row for row, _ in known]
            axes.barh(
                rows,
                [item.mean for _, item in known],
                height * 0.92,
                color=_SERIES[index % NUM_SERIES],
            )
            _whiskers(axes, known)
            of_paper = paper.get(group.name, {})
            marked = [
                (of_paper[names[round(row)]], row) for row in rows if names[round(row)] in of_paper
            ]
            if marked:
                axes.plot(
                    *zip(*marked, strict=True),
                    "D",
                    markersize=3.6,
                    markeredgecolor=INK,
                    markerfacecolor="none",
                    markeredgewidth=1.1,
                )
        axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("IoU, %")
        return _svg(
            figure, f"IoU of every class on {dataset}, in percent; the table has the numbers"
        )


def confusion_chart(confusion: np.ndarray, names: Sequence[str], label: str) -> str:
    """Where the pixels of each true class went, in percent of its row.

    Args:
        confusion: (C, C) counts, rows are the truth.
        names: of the classes.
        label: for the screen reader.
    """
    shares = row_shares(confusion)
    side = 1.3 + 0.235 * len(names)
    cells = LinearSegmentedColormap.from_list("heat", [(*to_rgb(HEAT), 0.05), (*to_rgb(HEAT), 1.0)])
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _figure(side, side)
        shown = np.ma.masked_less(np.nan_to_num(shares), SHOWN_SHARE)
        axes.pcolormesh(shown, cmap=cells, vmin=0, vmax=1, edgecolors="none")
        for row, column in np.argwhere(np.nan_to_num(shares) >= NUMBERED_SHARE):
            share = shares[row, column]
            axes.text(
                column + 0.5,
                row + 0.52,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=ON_HEAT if share > DARK_SHARE else INK,
            )
        ticks = np.arange(len(names)) + 0.5
        labels = [_shortened(name) for name in names]
        axes.set_xticks(ticks, labels, rotation=90, fontsize=8)
        axes.set_yticks(ticks, labels, fontsize=8)
        axes.set_xlim(0, len(names))
        axes.set_ylim(len(names), 0)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_aspect("equal")
        for spine in axes.spines.values():
            spine.set_visible(True)
        return _svg(figure, label)


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """(C, C) share of each true class; rows of classes that are not there are NaN."""
    totals = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)


def class_names(groups: Sequence[Group], dataset: str) -> list[str]:
    """Of the first score on the dataset; all have the same."""
    return list(next(score.iou for group in groups for score in group.scores(dataset)))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"


def _dash(index: int) -> str:
    return _DASHES[index // NUM_SERIES % len(_DASHES)]


def _draw(axes: Axes, curve: Curve, factor: float, **look: Any) -> None:
    marker = "o" if len(curve) < 8 else ""
    axes.plot(
        [at for at, _ in curve],
        [factor * value for _, value in curve],
        marker=marker,
        markersize=3.5,
        **look,
    )


def _whiskers(axes: Axes, known: Sequence[tuple[float, Any]]) -> None:
    spreads = [(row, item.mean, item.std) for row, item in known if item.std]
    if spreads:
        rows, means, stds = zip(*spreads, strict=True)
        axes.errorbar(means, rows, xerr=stds, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.6)


def _svg(figure: Figure, label: str) -> str:
    """The chart as an element of a page: named, with ids of its own and the page's colors."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = _METADATA.sub("", buffer.getvalue())
    text = _STYLE_SHEET.sub("", text[text.index("<svg") :])
    text = _TAG.sub(lambda tag: _DIGITS.sub(r"\1", tag[0]), text)  # not the text between tags
    text = _SPACE.sub("", _INVISIBLE.sub("", text))
    text = re.sub(r'"font: ([\d.]+)px [^";]*', r'"font-size: \1px', text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    own = hashlib.sha256(f"{label}{text}".encode()).hexdigest()[:8]
    text = _ID.sub(rf"\g<1>c{own}-", text)
    name = html.escape(label, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
