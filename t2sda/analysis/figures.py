"""Figures of analyses, each as PNG and SVG: what each shows is in docs/analysis.md."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from t2sda.analysis.study import DOMAINS, RunAnalysis
from t2sda.files import atomic_write
from t2sda.inference.plotting import blank_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

RUN_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#5c5c5c")
"""Distinct for the color-blind (Okabe and Ito)."""
INK, GRID = "#26292e", "#d8dade"
POINT_AREA = 7
WIDTH = 11.0


def similarity_figure(runs: Sequence[RunAnalysis]) -> Figure:
    """Cross-domain similarity of every class over its IoU on the target, as in Fig. 2.

    Classes stand in the order of the first run's similarity.
    """
    similarity = _by_run(runs, "similarity")
    order = np.argsort(next(iter(similarity.values())), kind="stable")
    figure = blank_figure(WIDTH, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    _grouped_bars(above, similarity, order, "cosine of source and\ntarget centroid")
    iou = {name: 100 * values for name, values in _by_run(runs, "iou").items()}
    _grouped_bars(below, iou, order, "IoU on the target, %")
    _name_classes(below, [runs[0].classes.names[index] for index in order])
    _title(above, "Cross-domain similarity of every class, and its IoU")
    return figure


def distances_figure(runs: Sequence[RunAnalysis]) -> Figure:
    """CCD and PDD of every class on the target, Eq. (14) and (15), as in Fig. 5.

    The line is the PDD of features that are as near to one centroid as to any other.
    """
    names = runs[0].classes.names
    figure = blank_figure(WIDTH, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    order = np.arange(len(names))
    _grouped_bars(above, _by_run(runs, "center_distance"), order, "class center\ndistance (14)")
    pixel_distances = _by_run(runs, "pixel_distance")
    _grouped_points(below, pixel_distances, "pixel-wise discrim-\nination distance (15)")
    present = int(np.isfinite(next(iter(pixel_distances.values()))).sum())
    if present > 1:
        below.axhline(1 - 1 / (present - 1), color=INK, linewidth=1, linestyle=":")
    _name_classes(below, names)
    _title(above, "Discriminability of target features: smaller is better")
    return figure


def embedding_figure(
    runs: Sequence[RunAnalysis], positions: Sequence[Mapping[str, np.ndarray]]
) -> Figure:
    """t-SNE of a few pixels of every class, as in Fig. S1: a column a run, a row a domain.

    Args:
        runs: with their samples.
        positions: (N, 2) of every run's sample, by domain.
    """
    figure = blank_figure(max(4.2 * len(runs), 7.0), 4.2 * len(DOMAINS) + 1.2)
    axes = figure.subplots(len(DOMAINS), len(runs), squeeze=False, sharex=True, sharey=True)
    colors = np.array(runs[0].classes.colors) / 255
    for column, (run, of_run) in enumerate(zip(runs, positions, strict=True)):
        for row, domain in enumerate(DOMAINS):
            panel = axes[row, column]
            labels = run.samples[domain].labels.numpy()
            mixed = np.random.default_rng(0).permutation(len(labels))  # no class lies on all others
            panel.scatter(
                *of_run[domain][mixed].T,
                s=POINT_AREA,
                c=colors[labels[mixed]],
                linewidths=0,
                rasterized=True,  # thousands of points would make an SVG of megabytes
            )
            panel.set_title(f"{run.name}: {domain}", loc="left", fontsize=10, parse_math=False)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_color(GRID)
    figure.suptitle("t-SNE of pixels of every class, one embedding for all panels", fontsize=11)
    samples = [sample for run in runs for sample in run.samples.values()]
    shown = {index for sample in samples for index in sample.labels.tolist()}
    _legend_of_classes(figure, runs[0], sorted(shown), "o")
    return figure


def pseudo_labels_figure(runs: Sequence[RunAnalysis]) -> Figure:
    """How right the teacher's confident pseudo-labels are, and how much of a class they cover."""
    names = runs[0].classes.names
    figure = blank_figure(WIDTH, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    order = np.arange(len(names))
    for panel, key, text in (
        (above, "pseudo_label_accuracy", "right pseudo-labels, %"),
        (below, "pseudo_label_coverage", "share of the class that\nis confident, %"),
    ):
        values = {name: 100 * found for name, found in _by_run(runs, key).items()}
        _grouped_bars(panel, values, order, text)
        panel.set_ylim(0, 100)
    everything = {
        name: 100 * found for name, found in _by_run(runs, "pseudo_label_accuracy_of_all").items()
    }
    _marks_on_bars(above, everything, "all pseudo-labels")
    _name_classes(below, names)
    _title(above, "Pseudo-labels of the teacher: accuracy (bars: confident ones) and coverage")
    return figure


def training_figure(runs: Sequence[RunAnalysis]) -> Figure:
    """Class weights w*, conf(c) and q over time: a column a run."""
    rows = (
        ("class_weight", "class weight w*"),
        ("confidence", "conf(c), Eq. (13)"),
        ("share", "share of the\npseudo-labels"),
    )
    figure = blank_figure(max(5.0 * len(runs), 9.0), 10.5)
    axes = figure.subplots(len(rows) + 1, len(runs), squeeze=False, sharex="col", sharey="row")
    for column, run in enumerate(runs):
        for row, (curve, text) in enumerate(rows):
            _class_curves(axes[row, column], run, curve)
            axes[row, 0].set_ylabel(text)
        last = axes[len(rows), column]
        if run.curves.quality:
            last.plot(*zip(*run.curves.quality, strict=True), color=INK, linewidth=1.4)
        last.set_ylim(-0.02, 1.02)
        last.set_xlabel("iteration")
        last.xaxis.get_major_locator().set_params(integer=True)
        axes[len(rows), 0].set_ylabel("quality q, Eq. (S2)")
        axes[0, column].set_title(run.name, loc="left", fontsize=10, parse_math=False)
    for panel in axes.flat:
        _plain(panel)
    _legend_of_classes(figure, runs[0], range(len(runs[0].classes)), "-")
    return figure


def write_figure(folder: Path, name: str, figure: Figure) -> None:
    """Write `name.png` and `name.svg`; the same figure gives the same bytes."""
    from matplotlib import rc_context

    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        content = io.BytesIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):  # text stays text
            figure.savefig(content, format=kind, dpi=130, metadata=metadata)
        atomic_write(folder / f"{name}.{kind}", content.getvalue())


def _by_run(runs: Sequence[RunAnalysis], key: str) -> dict[str, np.ndarray]:
    """(C,) of every run that has it."""
    return {run.name: run.per_class[key].numpy() for run in runs if key in run.per_class}


def _grouped_bars(
    axes: Axes, values: Mapping[str, np.ndarray], order: np.ndarray, text: str
) -> None:
    """A group of bars for each class; a small cross where a run has no value."""
    width = 0.82 / len(values)
    for number, (name, of_run) in enumerate(values.items()):
        places = np.arange(len(order)) + (number - (len(values) - 1) / 2) * width
        color = RUN_COLORS[number % len(RUN_COLORS)]
        axes.bar(places, of_run[order], width, color=color, label=_labelled(name), gid=name)
        missing = np.isnan(of_run[order])
        axes.plot(places[missing], np.zeros(missing.sum()), "x", color=color, markersize=4)
    axes.set_ylabel(text)
    axes.set_xlim(-0.6, len(order) - 0.4)
    _plain(axes)


def _grouped_points(axes: Axes, values: Mapping[str, np.ndarray], text: str) -> None:
    """As `_grouped_bars`, for values whose axis need not begin at 0."""
    width = 0.82 / len(values)
    for number, (name, of_run) in enumerate(values.items()):
        places = np.arange(len(of_run)) + (number - (len(values) - 1) / 2) * width
        color = RUN_COLORS[number % len(RUN_COLORS)]
        axes.plot(places, of_run, "o", color=color, label=_labelled(name))
    axes.set_ylabel(text)
    axes.margins(y=0.15)
    _plain(axes)


def _marks_on_bars(axes: Axes, values: Mapping[str, np.ndarray], text: str) -> None:
    """A short line across each bar of `_grouped_bars`."""
    width = 0.82 / len(values)
    for number, of_run in enumerate(values.values()):
        places = np.arange(len(of_run)) + (number - (len(values) - 1) / 2) * width
        axes.hlines(
            of_run,
            places - width / 2,
            places + width / 2,
            color=INK,
            linewidth=1.6,
            label=text if number == 0 else "_nolegend_",
        )


def _class_curves(axes: Axes, run: RunAnalysis, curve: str) -> None:
    of_class = run.curves.per_class.get(curve, {})
    if not of_class:
        axes.text(0.5, 0.5, "not logged in this run", ha="center", transform=axes.transAxes)
    for name, color in zip(run.classes.names, run.classes.colors, strict=True):
        if name in of_class:
            iterations, values = zip(*of_class[name], strict=True)
            axes.plot(iterations, values, color=np.array(color) / 255, linewidth=1.4)


def _name_classes(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(
        range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", parse_math=False
    )


def _title(axes: Axes, text: str) -> None:
    """Above the axes; the legend of the runs goes below the figure."""
    axes.set_title(text, loc="left", fontsize=11)
    figure = axes.get_figure()
    assert figure is not None
    _legend(figure, *axes.get_legend_handles_labels(), num_columns=4)


def _legend_of_classes(figure: Figure, run: RunAnalysis, shown: Iterable[int], mark: str) -> None:
    """Below the axes: the classes' names beside a dot ("o") or a line ("-") of their color."""
    from matplotlib.lines import Line2D

    handles, names = [], []
    for index in shown:
        red, green, blue = (tone / 255 for tone in run.classes.colors[index])
        handle = Line2D([], [], color=(red, green, blue))
        if mark == "o":
            handle.set(marker="o", linestyle="none")
        handles.append(handle)
        names.append(_labelled(run.classes.names[index]))
    widest = 0.45 + 0.075 * max(map(len, names), default=0)  # inches of a column
    _legend(figure, handles, names, num_columns=max(int(figure.get_figwidth() / widest), 1))


def _legend(
    figure: FigureBase, handles: Sequence[Artist], names: Sequence[str], num_columns: int
) -> None:
    legend = figure.legend(
        handles, names, loc="outside lower center", ncols=num_columns, frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ is a $


def _labelled(name: str) -> str:
    """A name as a label: matplotlib leaves those that begin with _ out of legends."""
    return f" {name}" if name.startswith("_") else name


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
