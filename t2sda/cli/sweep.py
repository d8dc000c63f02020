"""`t2sda sweep`: many runs from one file, on this machine or through Slurm."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from t2sda.cli.common import ArgumentParser, load_components, positive_int
from t2sda.data.parallel import num_cores
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.files import only_writer
from t2sda.training.sweep import (
    JOBS_FOLDER,
    Job,
    Sweep,
    SweepRun,
    execute,
    read_plugins,
    read_sweep,
)

CLUSTERS = ("local", "slurm")
UNLIMITED_MINUTES = 60 * 24 * 365
"""For the local executor, which else ends its jobs after minutes."""


def command(argv: Sequence[str]) -> int:
    """Run a sweep, or say what it would run or how far it is.

    Returns:
        0 if every run is done; 1 if one failed.
    """
    args = build_parser().parse_args(argv)
    path = Path(args.file)
    load_components(read_plugins(path))
    sweep = read_sweep(path)
    if args.print:
        for run in sweep.runs:
            print(run.command)
        return 0
    if args.status:
        standard_console().print(status_table(sweep))
        return 0
    with only_writer(sweep.output_dir, "output_dir"):
        failed = execute(sweep, Submitit(sweep, args.cluster, args.jobs), args.jobs)
    standard_console().print(status_table(sweep))
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda sweep",
        description="Runs all that a file lists, through submitit. What is done is left out, what "
        "was stopped goes on, so the same command starts a sweep and continues it.",
    )
    parser.add_argument("file", metavar="FILE", help="YAML; see docs/sweeps.md")
    parser.add_argument("--jobs", type=positive_int, default=1, help="runs at the same time")
    parser.add_argument(
        "--cluster", choices=CLUSTERS, default="local", help="where they run (default: local)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print", action="store_true", help="print the commands, run nothing")
    what.add_argument("--status", action="store_true", help="how far each run is, run nothing")
    return parser


def status_table(sweep: Sweep) -> Table:
    """A row for each run."""
    table = Table(box=None, pad_edge=False)
    for name in ("run", "state", "iteration", ""):
        table.add_column(name, justify="right" if name == "iteration" else "left")
    for run in sweep.runs:
        state = run.state
        table.add_row(
            run.name,
            state,
            f"{run.iteration}/{run.cfg.SOLVER.MAX_ITER}",
            run.error if state == "failed" else "",
        )
    return table


class Submitit:
    """Starts runs through submitit, whose logs lie in OUTPUT_DIR/jobs.

    Args:
        sweep: with the executor's parameters.
        cluster: one of CLUSTERS.
        jobs: at a time; on this machine each gets its share of the cores.
    """

    def __init__(self, sweep: Sweep, cluster: str, jobs: int) -> None:
        try:
            submitit = importlib.import_module("submitit")
        except ModuleNotFoundError:
            raise UserError(
                "t2sda sweep runs through submitit: pip install 't2sda[sweep]', or run the "
                "commands of --print yourself"
            ) from None
        folder = sweep.output_dir / JOBS_FOLDER
        self.executor = submitit.AutoExecutor(folder / "%j", cluster=cluster)
        defaults = {"timeout_min": UNLIMITED_MINUTES} if cluster == "local" else {}
        try:
            self.executor.update_parameters(**(defaults | dict(sweep.executor)))
        except (NameError, ValueError, TypeError, AssertionError) as error:
            raise UserError(f"executor: {error}") from None
        if cluster == "local":
            # Threads of several runs on one core slow each other down more than tenfold.
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // jobs)))

    def __call__(self, run: SweepRun) -> Job:
        """Start one."""
        job: Any = self.executor.submit(Train(run.arguments, run.label_arguments))
        return job


class Train:
    """`t2sda train` in a job; requeued by Slurm, it goes on from its newest checkpoint.

    Args:
        arguments: of it.
        label_arguments: of `t2sda pseudo-label` before it; empty: there is none.
    """

    def __init__(self, arguments: Sequence[str], label_arguments: Sequence[str] = ()) -> None:
        self.arguments = arguments
        self.label_arguments = label_arguments

    def __call__(self) -> None:
        """Run it to its end; raises RuntimeError unless that is a good one."""
        steps = [("train", self.arguments)]
        if self.label_arguments:
            steps.insert(0, ("pseudo-label", self.label_arguments))
        for verb, arguments in steps:
            code = run_verb(verb, arguments)
            if code:
                raise RuntimeError(f"t2sda {verb} ended with exit code {code}")

    def checkpoint(self) -> Any:
        """What to submit again."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self)


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """See `t2sda.cli.main`, which imports this module."""
    code: int = importlib.import_module("t2sda.cli.main").run_verb(verb, argv)
    return code
