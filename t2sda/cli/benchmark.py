"""`t2sda benchmark`: how fast models are on this machine, side by side."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from t2sda.cli.benchmark_files import time_files
from t2sda.cli.common import ArgumentParser, positive_int, short_names
from t2sda.cli.loading import add_model_arguments, description_of, load_for_models
from t2sda.data.parallel import num_cores
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.export.latency import Candidate, Comparison, Result, Segment, Task, compare_latency
from t2sda.files import atomic_write, check_writable_file, json_text
from t2sda.images.files import MAX_PIXELS
from t2sda.runtime.description import Description
from t2sda.runtime.loading import load_model
from t2sda.runtime.runtimes import runtime_for, runtimes_for

DEFAULT_SIZE = (512, 1024)
MUCH_OTHER_LOAD = 0.2
"""Cores; above it the times are worth little."""


def command(argv: Sequence[str]) -> int:
    """Time every model in every runtime that can run it, and print one table."""
    args = build_parser().parse_args(argv)
    load_for_models([Path(model) for model in args.models], args.plugin, args.file)
    if args.json:
        check_writable_file(Path(args.json), "--json")
    if args.runtimes and args.runtime:
        raise UserError("--runtime and --runtimes: give one of them")
    if args.images and not args.end_to_end:
        raise UserError("--images: are read with --end-to-end alone")
    if args.images and args.sizes:
        raise UserError("--sizes: the images of --images have sizes of their own; give one of them")
    args.sizes = list(dict.fromkeys(args.sizes or [DEFAULT_SIZE]))
    if args.end_to_end:
        _write_json(args, time_files(args, lambda path: _runtimes(args, path)))
        return 0
    comparison = compare_latency(_candidates(args), args.rounds)
    console = standard_console()
    console.print(table_of(comparison))
    note = " (much: repeat on a quiet machine)" if comparison.other_load > MUCH_OTHER_LOAD else ""
    console.print(
        f"other processes kept {comparison.other_load:.2f} of {os.cpu_count()} cores busy{note}; "
        f"{args.rounds} rounds of 3 calls",
        highlight=False,
    )
    _write_json(args, as_json(comparison))
    return 0


def _write_json(args: argparse.Namespace, content: Any) -> None:
    if not args.json:
        return
    try:
        atomic_write(Path(args.json), json_text(content, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"--json {args.json}: cannot be written ({error.strerror})") from None


CONDITIONS = {"size": "{}", "batch": "batch {}", "threads": "{} threads"}
"""Columns that move to the title where all rows agree, and how."""


def table_of(comparison: Comparison) -> Table:
    """A row for each candidate and task; ratios are to the first candidate on the same task."""
    names = short_names([result.candidate.name for result in comparison.results])
    rows = [
        {"model": name, **_row(result, comparison)}
        for name, result in zip(names, comparison.results, strict=True)
    ]
    same = [name for name in CONDITIONS if len({row[name] for row in rows}) == 1]
    title = ", ".join(["latency in ms", *(CONDITIONS[name].format(rows[0][name]) for name in same)])
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns = [name for name in rows[0] if name not in same]
    for name in columns:
        if name == "model":
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _row(result: Result, comparison: Comparison) -> dict[str, str]:
    return {
        "runtime": result.candidate.runtime,
        "size": "x".join(map(str, result.task.size)),
        "batch": str(result.task.batch_size),
        "threads": str(result.candidate.threads),
        **{f"p{percent}": f"{result.percentile(percent):.1f}" for percent in (50, 90, 99)},
        "images/s": f"{result.images_per_second:.1f}",
        "ratio": f"{ratio(result, comparison):.2f}",
        "load s": f"{result.load_seconds:.2f}",
        "MiB": f"{result.memory:.0f}",
    }


def ratio(result: Result, comparison: Comparison) -> float:
    """How many times as fast as the first candidate on the same task."""
    first = next(other for other in comparison.results if other.task == result.task)
    return first.percentile(50) / result.percentile(50)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The table, with every time."""
    return {
        "other_load_cores": round(comparison.other_load, 3),
        "results": [
            {
                "model": result.candidate.name,
                "runtime": result.candidate.runtime,
                "threads": result.candidate.threads,
                "size": list(result.task.size),
                "batch": result.task.batch_size,
                "milliseconds": {p: round(result.percentile(p), 3) for p in (50, 90, 99)},
                "images_per_second": round(result.images_per_second, 2),
                "ratio": round(ratio(result, comparison), 3),
                "load_seconds": round(result.load_seconds, 3),
                "peak_memory_mib": round(result.memory, 1),
                "seconds": [round(seconds, 5) for seconds in result.seconds],
            }
            for result in comparison.results
        ],
    }


def load_candidate(
    path: str,
    runtime: str,
    device: str,
    threads: int,
    description: Description | None,
    plugins: Sequence[str],
) -> Segment:
    """A model as the comparison calls it; what a candidate's process runs first."""
    load_for_models([Path(path)], plugins)
    model = load_model(path, runtime, device, threads=threads, description=description)

    def segment(images: list[np.ndarray]) -> object:
        return model.predict(images, batch_size=len(images))

    return segment


def _candidates(args: argparse.Namespace) -> list[Candidate]:
    tasks = tuple(Task(size, batch) for size in args.sizes for batch in args.batches)
    description = description_of(args)
    found = []
    for path in args.models:
        for runtime in _runtimes(args, Path(path)):
            for threads in args.thread_counts or [args.threads or num_cores()]:
                load = partial(
                    load_candidate, path, runtime, args.device, threads, description, args.plugin
                )
                found.append(Candidate(path, load, runtime, threads, tasks))
    return found


def _runtimes(args: argparse.Namespace, path: Path) -> list[str]:
    if args.runtimes:
        return runtimes_for(path, args.runtimes)
    return [runtime_for(path, args.runtime)]


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if match is None or 0 in map(int, match.groups()):
        raise argparse.ArgumentTypeError(f"'{text}' is no size like 512x1024 (height x width)")
    height, width = int(match[1]), int(match[2])
    if height * width > MAX_PIXELS:
        raise argparse.ArgumentTypeError(
            f"'{text}' has more than the {MAX_PIXELS} pixels that are ever decoded"
        )
    return height, width


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda benchmark",
        description="Time models side by side, from a uint8 image to its labels: every model in "
        "a process of its own, in rounds that take turns.",
    )
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="run folder, checkpoint or exported file"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_size,
        metavar="HxW",
        help="of the images (default: 512x1024)",
    )
    parser.add_argument(
        "--batches", nargs="+", type=positive_int, default=[1], metavar="N", help="images at once"
    )
    parser.add_argument(
        "--thread-counts", nargs="+", type=positive_int, metavar="N", help="default: one a core"
    )
    parser.add_argument(
        "--runtimes", nargs="+", metavar="NAME", help="each model is run in those that can"
    )
    parser.add_argument(
        "--end-to-end",
        action="store_true",
        help="from image files to label files instead: decoding, copies, network and writing "
        "apart, one image after another and overlapped as in `t2sda infer`",
    )
    parser.add_argument(
        "--images", metavar="DIR", help="with --end-to-end; default: drawn streets as PNG"
    )
    parser.add_argument("--rounds", type=positive_int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--json", metavar="FILE", help="write every time there")
    add_model_arguments(parser)
    return parser
