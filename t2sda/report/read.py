"""What the folder of a run holds, as far as a report shows it. Nothing is written here."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2sda.analysis.results import JSON_NAME
from t2sda.analysis.study import PARTS
from t2sda.engine.checkpoint import checkpoints_in
from t2sda.engine.metric_lines import metric_lines
from t2sda.errors import UserError
from t2sda.evaluation.entries import FILE_NAME, Entry, Protocol, read_entries
from t2sda.files import is_missing
from t2sda.inference.windows import default_step
from t2sda.report.facts import facts_of
from t2sda.report.scores import PREFIX, Curve, Evaluation, Score, newest_scores
from t2sda.training.folder import read_settings

PER_RUN = ("SEED", "OUTPUT_DIR")
"""Settings in which the runs of one group differ."""
FIGURE_SUFFIXES = (".svg", ".png")


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: distinguishes it from the other runs of the report.
        folder: where it lies.
        settings: every setting by its dotted key; sequences are lists.
        curves: metric -> (iteration, value), in order; values that are no number are left out.
        scores: the newest of each dataset.
        entries: of evaluation.json, all of them.
        facts: what else is known about it, as (what, text).
        iteration: steps done, as far as its files say.
        notes: what a reader must know: still training, damaged lines.
        figures: files of `t2sda analyze`.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    curves: Mapping[str, Curve]
    scores: Mapping[str, Score]
    entries: Sequence[Entry] = ()
    facts: Sequence[tuple[str, str]] = ()
    iteration: int = 0
    notes: Sequence[str] = ()
    figures: Sequence[Path] = ()

    @property
    def seed(self) -> str:
        """As set."""
        return str(self.settings.get("SEED", "?"))

    @property
    def progress(self) -> str:
        """Steps done and due."""
        due = self.settings.get("SOLVER.MAX_ITER")
        return f"{self.iteration:,} of {due:,}" if isinstance(due, int) else f"{self.iteration:,}"

    def way_of_scoring(self, dataset: str) -> str:
        """Branch and protocol of a score, such as: student, as they are, whole."""
        entry = self.scores[dataset].entry
        if entry is None:  # an evaluation of the training
            names = ("IMAGE_SIZE", "WINDOW", "STEP")
            sizes = [self.settings.get(f"EVALUATION.{name}") for name in names]
            size, window, step = (tuple(sides) if sides else None for sides in sizes)
            step = step or (default_step(window) if window else None)
            return f"student, {Protocol(size, window, step)}"
        return f"{entry.branch or 'one network'}, {entry.scores.protocol}"


@dataclass
class Metrics:
    """What a metrics.jsonl holds.

    Attributes:
        curves: see `Run`.
        evaluations: the last one of each dataset, NaN for a class that was not there.
        damaged: number of lines that are none.
    """

    curves: dict[str, Curve]
    evaluations: dict[str, Evaluation]
    damaged: int = 0


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone.

    Attributes:
        name: what their names have in common.
        runs: one or more.
    """

    name: str
    runs: Sequence[Run]

    def scores(self, dataset: str) -> list[Score]:
        """One for each run that was scored on it."""
        return [run.scores[dataset] for run in self.runs if dataset in run.scores]


def read_run(folder: Path, name: str) -> Run:
    """Read what there is; a run that is still training has fewer files.

    Raises:
        MissingFileError: if there is no such folder.
        UserError: if it is the folder of no run, or a file in it is damaged.
    """
    settings = read_settings(folder)
    metrics = read_metrics(folder / "metrics.jsonl")
    curves = metrics.curves
    path = folder / FILE_NAME
    entries = [] if is_missing(path) else read_entries(path)
    iteration = _iteration(folder, curves, entries)
    return Run(
        name,
        folder,
        settings,
        curves,
        newest_scores(entries, metrics.evaluations, path),
        entries,
        facts=facts_of(folder, curves),
        iteration=iteration,
        notes=_notes(iteration, settings.get("SOLVER.MAX_ITER"), metrics.damaged),
        figures=figures_in(folder / "analysis"),
    )


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """Runs whose settings are equal but for PER_RUN, together; in the order of their first."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        method = {key: value for key, value in run.settings.items() if key not in PER_RUN}
        together.setdefault(json.dumps(method, sort_keys=True, default=str), []).append(run)
    names = [_common_name([run.name for run in members]) for members in together.values()]
    return [
        Group(name if names.count(name) == 1 else members[0].name, tuple(members))
        for name, members in zip(names, together.values(), strict=True)
    ]


def check_same_classes(runs: Sequence[Run]) -> None:
    """Raise UserError if two runs were scored with different classes: no table holds both."""
    first: dict[str, tuple[Run, tuple[str, ...]]] = {}
    for run in runs:
        for dataset, score in run.scores.items():
            found = {f"classes on {dataset}": tuple(score.iou)}
            if score.entry is not None:
                found["classes"] = score.entry.scores.classes
            for what, names in found.items():
                other, due = first.setdefault(what, (run, names))
                if names != due:
                    raise UserError(
                        f"{run.folder}: scored with {_shortened(names)}, but {other.folder} with "
                        f"{_shortened(due)}; make a report for each set of classes"
                    )


def read_metrics(path: Path) -> Metrics:
    """Of a metrics.jsonl, line by line; a missing one is empty."""
    found = Metrics({}, {})
    for line in metric_lines(path):
        if line is None:
            found.damaged += 1
            continue
        scored: dict[str, dict[str, float]] = {}
        for name, value in line.metrics.items():
            if math.isfinite(value):
                found.curves.setdefault(name, []).append((line.iteration, value))
            if name.startswith(PREFIX):
                dataset, _, what = name.removeprefix(PREFIX).partition("/")
                scored.setdefault(dataset, {})[what] = value
        found.evaluations |= {name: (line.iteration, own) for name, own in scored.items()}
    return found


def plain(value: Any) -> Any:
    """A setting's value as YAML gives it back: sequences are lists."""
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def figures_in(folder: Path) -> list[Path]:
    """Figures of `t2sda analyze` in a folder; none where no analysis was written to its end."""
    if is_missing(folder / JSON_NAME):
        return []
    names = [f"{part}{suffix}" for part in PARTS for suffix in FIGURE_SUFFIXES]
    return [folder / name for name in names if not is_missing(folder / name)]


def _iteration(folder: Path, curves: Mapping[str, Curve], entries: Sequence[Entry]) -> int:
    """Steps done, as far as metrics, checkpoints and scores say."""
    logged = [curve[-1][0] for curve in curves.values()]
    saved = [int(path.stem.rpartition("_")[2]) for path in checkpoints_in(folder)]
    scored = [entry.iteration or 0 for entry in entries]
    return max([0, *logged, *saved, *scored])


def _notes(iteration: int, max_iter: Any, damaged: int) -> list[str]:
    notes = []
    if isinstance(max_iter, int) and iteration < max_iter:
        notes.append(f"not finished: iteration {iteration:,} of {max_iter:,}")
    if damaged:
        notes.append(f"metrics.jsonl: {damaged} damaged line(s) left out")
    return notes


def _common_name(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    common = os.path.commonprefix(names)  # noqa: RUF071  (of letters, not of folders)
    common = common.rstrip("0123456789").rstrip("_-./ ")
    common = re.sub(r"[_\-./ ]*seed$", "", common)
    return common or f"{names[0]} and {len(names) - 1} more"


def _shortened(names: Sequence[str]) -> str:
    more = ", …" if len(names) > 3 else ""
    return f"{len(names)} classes ({', '.join(names[:3])}{more})"
