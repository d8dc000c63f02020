"""`t2sda sweep`: many runs from one file, on this machine or through Slurm."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from t2sda.cli.common import ArgumentParser, load_components, positive_int
from t2sda.data.parallel import num_cores
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.files import only_writer
from t2sda.training.sweep import JOBS_FOLDER, Sweep, SweepRun, read_plugins, read_sweep
from t2sda.training.sweep_execution import Job, execute

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
        jobs: at a time; on this machine each gets its share of the cores, and GPUs of its own as
            far as there are some.
    Raises:
        UserError: without submitit or the cluster's programs, or for parameters that it refuses.
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
        self.is_local = cluster == "local"
        defaults = {"timeout_min": UNLIMITED_MINUTES} if self.is_local else {}
        try:
            self.executor = submitit.AutoExecutor(folder / "%j", cluster=cluster)
        except RuntimeError as error:
            raise UserError(f"--cluster {cluster}: {error}") from None
        try:
            self.executor.update_parameters(**(defaults | dict(sweep.executor)))
        except (NameError, ValueError, TypeError, AssertionError) as error:
            raise UserError(f"executor: {error}") from None
        self.gpus_per_run = num_gpus_per_run(sweep.executor)
        self.started: list[tuple[Any, list[str]]] = []
        if self.is_local:
            # Threads of several runs on one core slow each other down more than tenfold.
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // jobs)))

    def __call__(self, run: SweepRun) -> Job:
        """Start one; raises UserError if the cluster takes no such job."""
        if self.is_local:
            gpus = self._least_busy_gpus()
            with ignored(signal.SIGINT):  # of the terminal: it would come beside `cancel`
                task = LocalTrain(run.arguments, run.label_arguments, gpus)
                started = LocalJob(self.executor.submit(task))
            self.started.append((started, gpus))
            return started
        try:
            return ClusterJob(self.executor.submit(Train(run.arguments, run.label_arguments)))
        except RuntimeError as error:  # submitit's, with what sbatch said
            raise UserError(f"{run.name}: cannot be submitted: {error}") from None

    def _least_busy_gpus(self) -> list[str]:
        """Those of a run that starts now, as CUDA_VISIBLE_DEVICES has them."""
        self.started = [(job, gpus) for job, gpus in self.started if not job.done()]
        busy = Counter(gpu for _, gpus in self.started for gpu in gpus)
        return sorted(visible_gpus(), key=busy.__getitem__)[: self.gpus_per_run]


def num_gpus_per_run(executor: Mapping[str, Any]) -> int:
    """On this machine; one unless the executor's parameters say otherwise."""
    return int(executor.get("local_gpus_per_node", executor.get("gpus_per_node", 1)))


def visible_gpus() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES has them."""
    count, listed = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if listed is None else listed.split(",")
    return list(names)[:count]


@contextmanager
def ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal in the block; processes that are started there ignore it ever after."""
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, previous)


class ClusterJob:
    """A job of submitit.

    Args:
        job: of any of its executors.
    """

    def __init__(self, job: Any) -> None:
        self.job = job

    @property
    def log_path(self) -> Path:
        """Where its standard error goes."""
        return Path(self.job.paths.stderr)

    def done(self) -> bool:
        """Whether it has ended."""
        return bool(self.job.done())

    def cancel(self) -> None:
        """Slurm sends SIGTERM, at which a run finishes its step."""
        self.job.cancel()


class LocalJob(ClusterJob):
    """A job on this machine."""

    def cancel(self) -> None:
        """Send SIGTERM, at which a run finishes its step.

        submitit's own `cancel` leaves it a second for that, then kills it.
        """
        with suppress(ProcessLookupError):
            os.kill(int(self.job.job_id), signal.SIGTERM)


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


class LocalTrain(Train):
    """The same on this machine.

    Args:
        arguments, label_arguments: see Train.
        gpus: that it may see; submitit would show the first ones to every run, or none.
    """

    def __init__(
        self, arguments: Sequence[str], label_arguments: Sequence[str], gpus: Sequence[str]
    ) -> None:
        super().__init__(arguments, label_arguments)
        self.gpus = gpus

    def __call__(self) -> None:
        """Run it, out of reach of the terminal's Ctrl-C; `LocalJob.cancel` ends it."""
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        os.setpgrp()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # submitit's handler ignores it
        super().__call__()


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """See `t2sda.cli.main`, which imports this module."""
    code: int = importlib.import_module("t2sda.cli.main").run_verb(verb, argv)
    return code
