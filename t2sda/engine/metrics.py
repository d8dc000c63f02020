"""Where numbers go: JSON lines, TensorBoard, and the console."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.engine.hooks import Hook, Stage
from t2sda.errors import printable
from t2sda.files import atomic_write, is_missing, json_text, open_regular, reason
from t2sda.structures import Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

SCHEMA.declare(
    "LOGGING",
    {
        "PERIOD": Field(20, "iterations between logged steps", unit="iterations", low=1),
        "TENSORBOARD": Field(True, "write TensorBoard events beside metrics.jsonl"),
    },
)


class MetricWriter(Protocol):
    """One destination of metrics."""

    def start(self, first_iteration: int) -> None:
        """Forget what is at or behind `first_iteration`: it will be written again."""

    def write(self, iteration: int, metrics: dict[str, float]) -> None:
        """Metrics after `iteration` steps."""

    def write_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Images after `iteration` steps, by name: (H, W, 3) uint8 RGB."""

    def close(self) -> None:
        """Nothing more will come."""


class JsonLinesWriter:
    """One JSON object a line in `metrics.jsonl`, each flushed at once.

    What cannot be written is kept, and written with the next line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = b""

    def start(self, first_iteration: int) -> None:
        """Drop lines behind `first_iteration`, and what is no line: cut short or overwritten."""
        if is_missing(self.path):
            return
        with open_regular(self.path) as file:
            lines = file.read().splitlines()
        kept = [line for line in lines if _iteration_of(line) <= first_iteration]
        atomic_write(self.path, b"".join(line + b"\n" for line in kept))

    def write(self, iteration: int, metrics: dict[str, float]) -> None:
        """Append a line; raises OSError and keeps it if the disk does not take it."""
        self._waiting += json_text({"iteration": iteration, **metrics}).encode() + b"\n"
        self._flush()

    def write_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Leaves them out: lines hold numbers."""

    def close(self) -> None:
        """Write what is left."""
        self._flush()

    def __str__(self) -> str:
        return str(self.path)

    def _flush(self) -> None:
        if not self._waiting:
            return
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                written = file.write(self._waiting)
                if written < len(self._waiting):  # the disk became full on the way
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise
        self._waiting = b""


class TensorBoardWriter:
    """Event files below `tensorboard/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events: SummaryWriter | None = None

    def start(self, first_iteration: int) -> None:
        """Open; events behind `first_iteration` disappear from view."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._events = SummaryWriter(str(self.folder), purge_step=first_iteration + 1)

    def write(self, iteration: int, metrics: dict[str, float]) -> None:
        """Add scalars."""
        assert self._events is not None, "write before start"
        for name, value in metrics.items():
            self._events.add_scalar(name, value, iteration)

    def write_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Add images."""
        assert self._events is not None, "write before start"
        for name, image in images.items():
            self._events.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        """Flush and close."""
        if self._events is not None:
            self._events.close()

    def __str__(self) -> str:
        return str(self.folder)


class MetricsHook(Hook):
    """Sends every `period`-th step's metrics to the writers.

    Args:
        writers: destinations.
        period: see LOGGING.PERIOD.
        max_iter: of the run.
    """

    stage = Stage.METRICS

    def __init__(self, writers: list[MetricWriter], period: int, max_iter: int) -> None:
        self.writers = writers
        self.period = period
        self.max_iter = max_iter
        self._last = (0, 0.0)
        self._failing: set[int] = set()

    def before_train(self, first_iteration: int) -> None:
        """Open the writers."""
        self._last = (first_iteration, time.perf_counter())
        for writer in self.writers:
            writer.start(first_iteration)

    def after_step(self, step: Step) -> None:
        """Write if it is due."""
        done = step.iteration + 1
        if done % self.period and done != self.max_iter:
            return
        now = time.perf_counter()
        last_done, last_time = self._last
        step.metrics["seconds_per_iteration"] = (now - last_time) / max(1, done - last_done)
        self._last = (done, now)
        if self.writers:
            step.metrics.update(read_back(step.deferred_metrics))
        self.write(done, step.metrics)

    def after_train(self, next_iteration: int) -> None:
        """Close the writers."""
        for writer in self.writers:
            with self._going_on(writer):
                writer.close()

    def write(self, iteration: int, metrics: dict[str, float]) -> None:
        """Send metrics."""
        for writer in self.writers:
            with self._going_on(writer):
                writer.write(iteration, metrics)

    @contextlib.contextmanager
    def _going_on(self, writer: MetricWriter) -> Iterator[None]:
        """A log that cannot be written is no reason to lose a training: it is said once."""
        try:
            yield
            self._failing.discard(id(writer))
        except OSError as error:
            if id(writer) not in self._failing:
                logger.warning(
                    "%s: metrics cannot be written (%s); training goes on", writer, reason(error)
                )
            self._failing.add(id(writer))

    def write_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Send images; the time they took is not an iteration's."""
        for writer in self.writers:
            with self._going_on(writer):
                writer.write_images(iteration, images)
        self._last = (iteration, time.perf_counter())

    def write_evaluation(self, iteration: int, metrics: dict[str, float]) -> None:
        """Send scores; the time they took is not an iteration's."""
        self.write(iteration, metrics)
        self._last = (iteration, time.perf_counter())


def read_back(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars on a device as numbers, with one wait for all of them."""
    if not metrics:
        return {}
    values = torch.stack([value.double() for value in metrics.values()]).tolist()
    return dict(zip(metrics, values, strict=True))


class ProgressHook(Hook):
    """A bar with the time that is left where a person looks, and a log message now and then.

    Args:
        period: iterations between log messages.
        max_iter: of the run.
        console: where to show it.
    """

    stage = Stage.METRICS

    def __init__(self, period: int, max_iter: int, console: Console) -> None:
        self.period = period
        self.max_iter = max_iter
        self.console = console
        self._first = 0
        self._began = 0.0
        self._bar: Progress | None = None

    def before_train(self, first_iteration: int) -> None:
        """Show the bar."""
        self._first, self._began = first_iteration, time.perf_counter()
        if self.console.is_terminal:
            self._bar = progress_bar(self.console)
            self._bar.start()
            self._bar.add_task("training", total=self.max_iter, completed=first_iteration, note="")

    def after_step(self, step: Step) -> None:
        """Advance."""
        done = step.iteration + 1
        losses = " ".join(f"{name} {step.metrics[name]:.3f}" for name in step.losses)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, note=losses)
        if done % self.period == 0 or done == self.max_iter:
            pace = (time.perf_counter() - self._began) / (done - self._first)
            left = timedelta(seconds=round(pace * (self.max_iter - done)))
            logger.info(
                f"iteration {done}/{self.max_iter}  {losses}  lr {step.metrics['lr']:.2e}  "
                f"{pace:.2f} s/it  eta {left}",
                extra={"in_bar": self._bar is not None},
            )

    def after_train(self, next_iteration: int) -> None:
        """Leave the terminal as it was."""
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was, also when training ended in an error."""
        if self._bar is not None:
            self._bar.stop()

    def track(self, indices: Sequence[int], what: str) -> Iterator[int]:
        """The indices one by one, with a bar of their own where there is one."""
        if self._bar is None:
            yield from indices
            return
        yield from advancing(self._bar, indices, what)
        self._bar.remove_task(self._bar.task_ids[-1])


def advancing(bar: Progress, indices: Sequence[int], what: str) -> Iterator[int]:
    """The indices one by one, while a new task of `bar` advances."""
    task = bar.add_task(what, total=len(indices), note="")
    for index in indices:
        yield index
        bar.advance(task)


def progress_bar(console: Console) -> Progress:
    """A bar with count, time left and a note; shown where a person looks."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )


def _iteration_of(line: bytes) -> float:
    """The line's iteration; infinity for what is no such line."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")


class NamesConsole(Console):
    """A console that file names and messages cannot steer."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print text with its control characters spelled out, and anything else as rich does."""
        shown = (printable(item) if isinstance(item, str) else item for item in objects)
        super().print(*shown, **options)


def standard_console(quiet: bool = False) -> Console:
    """The console on standard output, as wide as its window, 100 columns elsewhere."""
    width = None if sys.stdout.isatty() else 100
    return NamesConsole(file=sys.stdout, width=width, markup=False, quiet=quiet)
