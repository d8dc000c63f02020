"""Starts the runs of a sweep in their order, at most so many at a time."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Protocol

from t2sda.errors import UserError
from t2sda.training.record import FILE_NAME, sessions_of
from t2sda.training.sweep import Sweep, SweepRun

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0


class Job(Protocol):
    """What a sweep asks of a job."""

    @property
    def log_path(self) -> Path:
        """What it said to standard error."""

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""

    def cancel(self) -> None:
        """End it; a run that trains finishes its step and leaves a checkpoint."""


class Submit(Protocol):
    """Starts a run."""

    def __call__(self, run: SweepRun) -> Job: ...


def execute(sweep: Sweep, submit: Submit, jobs: int) -> list[SweepRun]:
    """Run what is not done, at most `jobs` at a time; returns the runs that failed.

    Runs that another process trains, such as one that a killed sweep has left, count among them and
    are waited for. A run that fails takes with it those that need it; the others go on.

    Raises:
        UserError: before any starts, see `check_folders`; or if one cannot be started.
    """
    check_folders(sweep)
    waiting = [run for run in sweep.runs if run.state != "done"]
    done = {run.name for run in sweep.runs} - {run.name for run in waiting}
    active: dict[str, tuple[SweepRun, Job]] = {}
    failed: dict[str, SweepRun] = {}
    try:
        while waiting or active:
            for name, (run, job) in list(active.items()):
                if job.done():
                    del active[name]
                    _account_for(run, job, waiting, done, failed)
            left_running = [run for run in waiting if run.state == "running"]
            for run in [run for run in waiting if run not in left_running]:
                if run.state == "done":  # it was left running, and has ended
                    done.add(run.name)
                    waiting.remove(run)
                elif failed.keys() & set(run.needs):
                    failed[run.name] = run
                    waiting.remove(run)
                    logger.warning("%s: not started, as a run that it needs failed", run.name)
                elif len(active) + len(left_running) < jobs and done.issuperset(run.needs):
                    waiting.remove(run)
                    active[run.name] = run, submit(run)
                    logger.info("%s: started", run.name)
            if waiting or active:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for _, job in active.values():
            job.cancel()
    return list(failed.values())


def check_folders(sweep: Sweep) -> None:
    """`check_folder` of all runs."""
    for run in sweep.runs:
        check_folder(run, sweep)


def check_folder(run: SweepRun, sweep: Sweep) -> None:
    """Raise UserError for a folder whose content is not of the sweep as its file is now.

    That is what was trained with other settings, wholly or in part, or began before a run that it
    needs was trained anew.
    """
    state = run.state
    if state != "running" and not run.iteration:
        return
    what = "done" if state == "done" else "begun"
    remedy = "remove the folder to train it anew, or give another output_dir"
    if run.changes:
        raise UserError(
            f"{run.folder}: {what} with other settings: {'; '.join(run.changes)}; {remedy}"
        )
    for needed in sweep.runs:
        if needed.name in run.needs and _started(run) < _started(needed):
            raise UserError(f"{run.folder}: {what} before {needed.folder} was; {remedy}")


def _started(run: SweepRun) -> str:
    """When a run began, ISO 8601 in UTC; empty where no record says so."""
    sessions = sessions_of(run.folder / FILE_NAME)
    return str(sessions[0].get("started", "")) if sessions else ""


def _account_for(
    run: SweepRun, job: Job, waiting: list[SweepRun], done: set[str], failed: dict[str, SweepRun]
) -> None:
    """Note what became of a run whose job has ended."""
    state = run.state
    if state == "done":
        done.add(run.name)
        logger.info("%s: done", run.name)
    elif state == "running":
        waiting.append(run)
        logger.info("%s: another process trains it; waiting for that", run.name)
    else:
        failed[run.name] = run
        what = "stopped" if state == "stopped" else "failed"
        logger.warning("%s: %s (%s)", run.name, what, run.error or f"see {job.log_path}")
