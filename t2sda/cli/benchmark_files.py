"""`t2sda benchmark --end-to-end`: from image files to label files, stage by stage."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from t2sda.cli.common import short_names
from t2sda.cli.loading import description_of, load_for_models
from t2sda.data.parallel import num_cores
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.export.end_to_end import STAGES, Breakdown, Job, break_down, copied, street_files
from t2sda.files import is_folder
from t2sda.images.finding import find_files
from t2sda.runtime.description import Description
from t2sda.runtime.loading import load_model
from t2sda.runtime.predictor import Predictor

NUM_FILES = 4
MUCH_OTHER_LOAD = 0.2


def load_job(
    path: str,
    runtime: str,
    device: str,
    description: Description | None,
    plugins: Sequence[str],
    threads: int,
    streams: int,
) -> Predictor:
    """A model in a job's process."""
    load_for_models([Path(path)], plugins)
    return load_model(
        path, runtime, device, threads=threads, streams=streams, description=description
    )


def time_files(args: argparse.Namespace, runtimes: Callable[[Path], list[str]]) -> Any:
    """Measure all models on all sizes, print the table; returns it for JSON.

    Raises:
        UserError: for options that say nothing here, and for images that cannot be read.
    """
    if args.batches != [1] or args.thread_counts:
        raise UserError(
            "--end-to-end: takes one image at a time on all cores; leave out --batches "
            "and --thread-counts"
        )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for files in _all_files(args, Path(folder)):
            for path in args.models:
                for runtime in runtimes(Path(path)):
                    described = description_of(args)
                    load = partial(load_job, path, runtime, args.device, described, args.plugin)
                    cores = args.threads or num_cores()
                    found.append(break_down(Job(path, load, runtime, files, args.rounds, cores)))
    console = standard_console()
    console.print(table_of(found))
    other = max(one.other_load for one in found)
    note = " (much: repeat on a quiet machine)" if other > MUCH_OTHER_LOAD else ""
    console.print(
        f"other processes kept up to {other:.2f} of {os.cpu_count()} cores busy{note}",
        highlight=False,
    )
    return {"results": [_as_json(one) for one in found]}


def _all_files(args: argparse.Namespace, folder: Path) -> list[tuple[Path, ...]]:
    if not args.images:
        return [street_files(folder, size, NUM_FILES) for size in args.sizes]
    if not is_folder(Path(args.images)):
        raise UserError(f"--images {args.images}: no such folder")
    images = find_files(Path(args.images), ["**/*"]).files
    if not images:
        raise UserError(f"--images {args.images}: no image in this folder")
    return [copied(images, folder / "images")]


def table_of(found: Sequence[Breakdown]) -> Table:
    """A row a job: milliseconds of each stage, their shares, images a second."""
    table = Table(
        title="file to labels on disk: ms an image, then images a second",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("model", overflow="fold")
    for name in ("runtime", "size", *STAGES, "shares %", "one by one", "overlapped"):
        table.add_column(name, justify="right", no_wrap=True)
    names = short_names([one.job.name for one in found])
    for name, one in zip(names, found, strict=True):
        medians = [one.median(stage) for stage in STAGES]
        table.add_row(
            name,
            one.job.runtime,
            "x".join(map(str, one.size)),
            *(f"{1000 * median:.0f}" for median in medians),
            "/".join(f"{100 * median / sum(medians):.0f}" for median in medians),
            f"{1 / one.one_by_one:.2f}",
            f"{1 / one.overlapped:.2f}",
        )
    return table


def _as_json(one: Breakdown) -> dict[str, Any]:
    return {
        "model": one.job.name,
        "runtime": one.job.runtime,
        "size": list(one.size),
        "cores": one.job.cores,
        "other_load_cores": round(one.other_load, 3),
        "seconds": {stage: [round(s, 6) for s in own] for stage, own in one.seconds.items()},
        "one_by_one_seconds": round(one.one_by_one, 6),
        "overlapped_seconds": [round(s, 6) for s in one.overlapped_seconds],
    }
