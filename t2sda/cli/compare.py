"""`t2sda compare`: runs side by side, what was set differently and what came of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from t2sda.cli.common import ArgumentParser, distinct_names
from t2sda.cli.score_table import print_scores
from t2sda.engine.metrics import standard_console
from t2sda.errors import MissingFileError, UserError
from t2sda.evaluation.bootstrap import mean_iou_difference
from t2sda.evaluation.entries import FILE_NAME, Entry, Protocol, Scores, read_entries
from t2sda.training.folder import differing_settings, read_settings

OF_THE_PLACE = ("OUTPUT_DIR",)
"""Settings that every run has for itself."""

Task = tuple[str, Protocol, str | None]
"""Dataset, protocol and branch of a score."""


@dataclass(frozen=True)
class ScoredRun:
    """A run's folder.

    Attributes:
        name: distinguishes it from the others.
        settings: by their dotted keys.
        scores: of its newest weights, by task.
    """

    name: str
    settings: Mapping[str, Any]
    scores: Mapping[Task, Scores]


def command(argv: Sequence[str]) -> int:
    """Print what differs between runs; returns 0."""
    args = build_parser().parse_args(argv)
    if len(args.runs) < 2:
        raise UserError(f"RUN: {args.runs[0]}; give two different runs or more")
    names = distinct_names(args.runs)
    runs = [read_run(Path(run), name) for run, name in zip(args.runs, names, strict=True)]
    console = standard_console()
    print_changes(console, runs)
    tasks = [task for task in runs[0].scores if all(task in run.scores for run in runs)]
    for task in tasks:
        found = {run.name: run.scores[task] for run in runs}
        baseline = found[runs[0].name]
        differences = {
            name: mean_iou_difference(scores, baseline, args.blocks)
            for name, scores in found.items()
            if name != runs[0].name
        }
        print_scores(console, found, differences)
    for text in _left_out(runs, tasks):
        console.print(text, highlight=False, soft_wrap=True)
    if not tasks:
        raise UserError(
            f"{' and '.join(args.runs)} have no score of one dataset, size and branch in common; "
            f"`t2sda evaluate {' '.join(args.runs)} --data NAME` adds some"
        )
    return 0


def read_run(folder: Path, name: str) -> ScoredRun:
    """The settings and scores that lie in a run's folder.

    Raises:
        MissingFileError: if it is no run's folder, or holds no scores.
        UserError: if one of its files is damaged.
    """
    settings = read_settings(folder)
    try:
        entries = read_entries(folder / FILE_NAME)
    except MissingFileError:
        raise MissingFileError(
            f"{folder}: no {FILE_NAME}: the run has not ended yet, or was not scored; "
            f"`t2sda evaluate {folder} --data NAME` scores its newest checkpoint"
        ) from None
    return ScoredRun(name, settings, _newest(entries))


def print_changes(console: Console, runs: Sequence[ScoredRun]) -> None:
    """A table of the settings that are not the same in all runs."""
    rows = differing_settings([run.settings for run in runs], OF_THE_PLACE)
    if not rows:
        console.print("all settings are the same")
        return
    table = Table()
    table.add_column("setting")
    for run in runs:
        table.add_column(run.name, overflow="fold")
    for key, values in rows:
        table.add_row(key, *values)
    console.print(table)


def _newest(entries: Sequence[Entry]) -> dict[Task, Scores]:
    """By task, the scores of the most iterations; of those, the last that were taken."""
    newest: dict[Task, Entry] = {}
    for entry in entries:
        task = (entry.scores.dataset, entry.scores.protocol, entry.branch)
        older = newest.get(task)
        if older is None or _age(entry) >= _age(older):
            newest[task] = entry
    return {task: entry.scores for task, entry in newest.items()}


def _age(entry: Entry) -> tuple[int, str]:
    return (-1 if entry.iteration is None else entry.iteration), entry.date


def _left_out(runs: Sequence[ScoredRun], tasks: Sequence[Task]) -> list[str]:
    """What some of the runs alone were scored on."""
    return [
        f"{run.name} alone: {dataset}, {protocol}" + (f", {branch}" if branch else "")
        for run in runs
        for dataset, protocol, branch in run.scores
        if (dataset, protocol, branch) not in tasks
    ]


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda compare",
        description="Print which settings of runs differ, and their scores with the differences "
        "to the first and what 95 % of bootstrap resamples of them lie between. Needs no dataset: "
        f"scores are read from {FILE_NAME}, which the end of a run and `t2sda evaluate` write.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders, the first is compared to")
    parser.add_argument(
        "--blocks",
        metavar="PATTERN",
        help="regular expression, found in every image's name; images with the same text of its "
        "first group are drawn together, such as '([^/]+)/' for folders. Default: every image "
        "alone",
    )
    return parser
