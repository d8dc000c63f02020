"""The files of an analysis: `analysis.json`, CSV tables, and the figures that fit the parts."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t2sda.analysis.curves import PER_CLASS
from t2sda.analysis.embedding import embed
from t2sda.analysis.figures import (
    distances_figure,
    embedding_figure,
    pseudo_labels_figure,
    similarity_figure,
    training_figure,
    write_figure,
)
from t2sda.analysis.study import (
    DISTANCES,
    DOMAINS,
    EMBEDDING,
    PARTS,
    PSEUDO_LABELS,
    SIMILARITY,
    TRAINING,
    RunAnalysis,
    StudySettings,
)
from t2sda.files import atomic_write, json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "t2sda analysis 1"
JSON_NAME, CLASSES_NAME, TRAINING_NAME, EMBEDDING_NAME = FILES = (
    *("analysis.json", "classes.csv", "training.csv", "embedding.csv"),
)
FIGURES: dict[str, Callable[[Sequence[RunAnalysis]], Figure]] = {
    SIMILARITY: similarity_figure,
    DISTANCES: distances_figure,
    PSEUDO_LABELS: pseudo_labels_figure,
    TRAINING: training_figure,
}
"""By part; the embedding's needs positions beside the runs."""
NEEDED = {
    SIMILARITY: lambda run: "similarity" in run.per_class,
    DISTANCES: lambda run: "center_distance" in run.per_class,
    PSEUDO_LABELS: lambda run: "pseudo_label_coverage" in run.per_class,
    TRAINING: lambda run: bool(run.curves.per_class or run.curves.quality),
}
"""Which runs a figure shows."""


def write_results(
    folder: Path,
    runs: Sequence[RunAnalysis],
    data: Sequence[str],
    settings: StudySettings,
) -> list[Path]:
    """Write everything, the JSON last; what an earlier analysis left in the folder is removed.

    Args:
        folder: exists.
        runs: analyzed with the same settings, of the same classes.
        data: names of source and target.
        settings: of the analysis.
    Returns:
        The files that were written.
    Raises:
        UserError: if there is too little for an embedding; an earlier analysis stays.
    """
    positions = embedded(runs, settings.seed) if EMBEDDING in settings.parts else []
    remove_results(folder)
    written: list[Path] = []
    for part in settings.parts:
        shown = [run for run in runs if part in NEEDED and NEEDED[part](run)]
        if shown:
            write_figure(folder, part, FIGURES[part](shown))
            written += [folder / f"{part}.png", folder / f"{part}.svg"]
    texts = {CLASSES_NAME: classes_csv(runs)}
    if any(NEEDED[TRAINING](run) for run in runs):
        texts[TRAINING_NAME] = training_csv(runs)
    if EMBEDDING in settings.parts:
        write_figure(folder, EMBEDDING, embedding_figure(runs, positions))
        written += [folder / f"{EMBEDDING}.png", folder / f"{EMBEDDING}.svg"]
        texts[EMBEDDING_NAME] = embedding_csv(runs, positions)
    texts[JSON_NAME] = json_text(as_json(runs, data, settings), indent=1) + "\n"
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return [*written, *(folder / name for name in texts)]


def remove_results(folder: Path) -> None:
    """Remove what an analysis wrote: figures of other parts would be taken for its own."""
    names = [JSON_NAME, *FILES, *(f"{part}.{kind}" for part in PARTS for kind in ("png", "svg"))]
    for name in names:
        (folder / name).unlink(missing_ok=True)


def embedded(runs: Sequence[RunAnalysis], seed: int) -> list[dict[str, np.ndarray]]:
    """Positions of the samples of all runs and domains in one embedding."""
    keys = [(run, domain) for run in runs for domain in DOMAINS]
    found = iter(embed([run.samples[domain].features for run, domain in keys], seed))
    return [{domain: next(found) for domain in DOMAINS} for _ in runs]


def as_json(
    runs: Sequence[RunAnalysis], data: Sequence[str], settings: StudySettings
) -> dict[str, Any]:
    """Everything but the points of the embedding."""
    return {
        "format": FORMAT,
        "source": data[0],
        "target": data[1],
        "parts": list(settings.parts),
        "seed": settings.seed,
        "classes": list(runs[0].classes.names),
        "runs": [_run_as_json(run) for run in runs],
    }


def _run_as_json(run: RunAnalysis) -> dict[str, Any]:
    per_class = {key: dict(_named(run, values.tolist())) for key, values in run.per_class.items()}
    return {
        "name": run.name,
        "checkpoint": run.checkpoint.name,
        "iteration": run.iteration,
        "features": run.features,
        "num_images": run.num_images,
        "per_class": per_class,
        "mean": {key: _mean(values.values()) for key, values in per_class.items()},
        "pseudo_label_quality": run.quality,
        "pseudo_label_threshold": run.threshold,
    }


def classes_csv(runs: Sequence[RunAnalysis]) -> str:
    """A line for each run and class."""
    keys = list(dict.fromkeys(key for run in runs for key in run.per_class))
    rows = []
    for run in runs:
        columns = {key: run.per_class[key].tolist() for key in keys if key in run.per_class}
        for index, name in enumerate(run.classes.names):
            values = [columns[key][index] if key in columns else math.nan for key in keys]
            rows.append([run.name, run.iteration, name, *map(_cell, values)])
    return _csv(["run", "iteration", "class", *keys], rows)


def training_csv(runs: Sequence[RunAnalysis]) -> str:
    """A line for each value: run, iteration, curve, class."""
    rows: list[list[Any]] = []
    for run in runs:
        rows += [[run.name, at, "quality", "", _cell(value)] for at, value in run.curves.quality]
        for curve in PER_CLASS:
            for name, values in run.curves.per_class.get(curve, {}).items():
                rows += [[run.name, at, curve, name, _cell(value)] for at, value in values]
    return _csv(["run", "iteration", "curve", "class", "value"], rows)


def embedding_csv(
    runs: Sequence[RunAnalysis], positions: Sequence[Mapping[str, np.ndarray]]
) -> str:
    """A line for each point."""
    rows: list[list[Any]] = []
    for run, of_run in zip(runs, positions, strict=True):
        for domain in DOMAINS:
            labels = run.samples[domain].labels.tolist()
            for label, (x, y) in zip(labels, of_run[domain].tolist(), strict=True):
                rows.append([run.name, domain, run.classes.names[label], f"{x:.4f}", f"{y:.4f}"])
    return _csv(["run", "domain", "class", "x", "y"], rows)


def _named(run: RunAnalysis, values: Sequence[float]) -> Iterable[tuple[str, float]]:
    return zip(run.classes.names, values, strict=True)


def _mean(values: Iterable[float]) -> float:
    """Over the classes that have a value."""
    exist = [value for value in values if math.isfinite(value)]
    return sum(exist) / len(exist) if exist else math.nan


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.8g}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
