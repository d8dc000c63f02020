"""Keep the results of a sweep's finished runs: a small JSON each, to be committed.

    python -m benchmarks.collect_results SWEEP.yaml --benchmark photographs

Reads what the runs left in their folders, `run.json` and `evaluation.json`, and writes
`benchmarks/results/BENCHMARK/NAME.seed_N.json`. Runs that are not done are named and left out; it
can be called again at any time.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.stored_results import (
    FOLDER,
    ROOT,
    StoredResult,
    StoredScores,
    config_hash,
    name_of,
    runs_before,
    settings_of,
    write_result,
)
from t2sda.cli.common import ArgumentParser, load_components, run_command
from t2sda.errors import MissingFileError, UserError
from t2sda.evaluation.entries import FILE_NAME as SCORES_NAME
from t2sda.evaluation.entries import Scores, read_entries
from t2sda.training.record import FILE_NAME as RECORD_NAME
from t2sda.training.record import sessions_of
from t2sda.training.sweep import Sweep, SweepRun, read_plugins, read_sweep
from t2sda.training.sweep_execution import check_folder

BRANCH = "student"


def command(argv: Sequence[str]) -> int:
    """Write a file for each finished run; returns 0."""
    args = _parser().parse_args(argv)
    file = Path(args.sweep)
    load_components(read_plugins(file))
    sweep = read_sweep(file)
    rows = rows_of(FOLDER / f"{args.benchmark}.yaml")
    if args.runs is not None:
        runs = tuple(moved(run, Path(args.runs)) for run in sweep.runs)
        sweep = dataclasses.replace(sweep, runs=runs)
    for run in sweep.runs:
        if name_of(run) not in rows:
            print(f"{run.name}: in no row, left out")
            continue
        if run.state != "done":
            print(f"{run.name}: {run.state}, left out")
            continue
        result = result_of(run, sweep, file, args.data)
        path = write_result(FOLDER / args.benchmark, result)
        print(f"{run.name}: {path.relative_to(ROOT)}")
    return 0


def rows_of(path: Path) -> set[str]:
    """Names of the runs that a benchmark's file has a row for; raises MissingFileError."""
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; it lists the rows of a benchmark")
    return set(yaml.safe_load(path.read_text(encoding="utf-8"))["rows"])


def moved(run: SweepRun, folder: Path) -> SweepRun:
    """The run as it lies below another folder than the sweep's."""
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder / run.name)
    cfg.freeze()
    return dataclasses.replace(run, cfg=cfg)


def result_of(
    run: SweepRun, sweep: Sweep, file: Path, datasets: Sequence[str] | None
) -> StoredResult:
    """What is kept of a finished run.

    Args:
        run: is done.
        sweep: of the run.
        file: the sweep's.
        datasets: whose scores are kept; None: all that it was scored on.

    Raises:
        UserError: if its folder does not hold what is needed, or it or a run that it started from
            was trained with other settings.
    """
    before = runs_before(run, sweep)
    for each in (*before, run):
        check_folder(each, sweep)
    sessions = sessions_of(run.folder / RECORD_NAME)
    if not all({"machine", "versions", "started"} <= session.keys() for session in sessions):
        sessions = []
    if not sessions:
        raise MissingFileError(f"{run.folder}: {RECORD_NAME} is missing or damaged")
    settings = settings_of(run)
    scores, checkpoint = scores_of(run, datasets)
    return StoredResult(
        name=name_of(run),
        seed=run.cfg.SEED,
        sweep=_below_root(file),
        config=run.arguments[run.arguments.index("--config-file") + 1],
        config_hash=config_hash(settings),
        command=run.command,
        settings=settings,
        scores=scores,
        checkpoint=checkpoint,
        iterations=run.iteration,
        needs={each.name: _others(settings_of(each), settings) for each in before},
        **_costs(sessions),
    )


def _others(settings: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not as in `known`."""
    return {key: value for key, value in settings.items() if known[key] != value}


def scores_of(run: SweepRun, datasets: Sequence[str] | None) -> tuple[dict[str, StoredScores], str]:
    """Scores of a run's last checkpoint by dataset, and the digest of the file.

    Raises:
        MissingFileError: if there is none, or none on one of the datasets.
    """
    path = run.folder / SCORES_NAME
    found = [
        entry
        for entry in read_entries(path)
        if entry.iteration == run.iteration and entry.branch == BRANCH
    ]
    by_dataset = {entry.scores.dataset: entry for entry in found}  # the last one counts
    names = list(by_dataset) if datasets is None else datasets
    missing = [name for name in names if name not in by_dataset]
    if missing or not names:
        raise MissingFileError(
            f"{path}: no scores of step {run.iteration} on "
            f"{' '.join(missing) or 'any dataset'}; "
            f"add them with `t2sda evaluate {run.folder} --data NAME`"
        )
    chosen = [by_dataset[name] for name in names]
    if len({entry.digest for entry in chosen}) > 1:
        raise UserError(f"{path}: scores are of different files; score them all again")
    return {entry.scores.dataset: stored(entry.scores) for entry in chosen}, chosen[0].digest


def stored(scores: Scores) -> StoredScores:
    """Scores in their reported classes."""
    groups = list(scores.group_classes.values()) or [(k,) for k in range(len(scores.classes))]

    def merged(counts: Sequence[int]) -> tuple[int, ...]:
        array = np.array(counts, dtype=np.int64)
        return tuple(int(array[list(group)].sum()) for group in groups)

    return StoredScores(
        protocol=str(scores.protocol),
        iou={k: None if math.isnan(v) else v for k, v in scores.reported.iou.items()},
        mean_iou=scores.reported.mean_iou,
        accuracy=scores.accuracy,
        images={
            image.name: (
                merged(image.true),
                merged(image.predicted),
                image.group_right if scores.groups else image.right,
            )
            for image in scores.images
        },
    )


def _costs(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where, when and how long a run was trained, over all times that it was started."""
    last = sessions[-1]

    def most(name: str) -> int | None:
        known = [session[name] for session in sessions if session.get(name) is not None]
        return max(known, default=None)

    return {
        "commits": list(dict.fromkeys(filter(None, (each.get("commit") for each in sessions)))),
        "machine": dict(last["machine"]) | {"processes": last.get("processes")},
        "versions": dict(last["versions"]),
        "started": sessions[0]["started"],
        "ended": last.get("ended"),
        "seconds": round(sum(session.get("seconds") or 0 for session in sessions), 1),
        "killed": sum("ended" not in session for session in sessions),
        "peak_memory_mib": most("peak_memory_mib"),
        "peak_gpu_memory_mib": most("peak_gpu_memory_mib"),
    }


def _below_root(file: Path) -> str:
    path = file.resolve()
    if not path.is_relative_to(ROOT):
        raise UserError(
            f"{file}: not in this repository; a result that is kept needs a sweep file that is, "
            f"so that a test can say when its settings change"
        )
    return path.relative_to(ROOT).as_posix()


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m benchmarks.collect_results", description=__doc__.splitlines()[0]
    )
    parser.add_argument("sweep", metavar="SWEEP", help="the sweep's file, in this repository")
    parser.add_argument(
        "--benchmark", required=True, metavar="NAME", help="folder below benchmarks/results/"
    )
    parser.add_argument(
        "--runs", metavar="FOLDER", help="where the runs lie; default: the file's output_dir"
    )
    parser.add_argument(
        "--data", nargs="+", metavar="NAME", help="datasets to keep the scores of; default: all"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_command(command, sys.argv[1:]))
