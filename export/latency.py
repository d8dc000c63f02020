"""Models timed side by side: each in a process of its own, in rounds that take turns.

A machine slows down and speeds up, and others use it. In interleaved rounds this hits everybody
alike, and what others used meanwhile is shown beside the times.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from t2sda.data.transforms import resize_image
from t2sda.errors import UserError
from t2sda.streets import draw_street

Segment = Callable[[list[np.ndarray]], object]
"""(H, W, 3) uint8 RGB each -> labels."""
WARM_UP = 2
"""Calls of a shape before the first round."""
STREET_SIZE = (256, 512)


class Task(NamedTuple):
    """What is timed: a batch of images of one size (height, width)."""

    size: tuple[int, int]
    batch_size: int


@dataclass(frozen=True)
class Candidate:
    """A model in a runtime.

    Attributes:
        name: in messages and, unless it is a path with a shorter name, in the table.
        load: called in a process of its own; can be pickled.
        runtime, threads: in the table.
        tasks: what it is timed on.
    """

    name: str
    load: Callable[[], Segment]
    runtime: str
    threads: int
    tasks: tuple[Task, ...]


@dataclass
class Result:
    """Times of a candidate on a task.

    Attributes:
        candidate, task: whose they are.
        seconds: of every call.
        load_seconds: from nothing to ready, without the imports of Python.
        memory: MiB, the most that its process held.
    """

    candidate: Candidate
    task: Task
    seconds: list[float] = field(default_factory=list)
    load_seconds: float = 0.0
    memory: float = 0.0

    def percentile(self, percent: float) -> float:
        """Milliseconds."""
        return 1000 * float(np.percentile(self.seconds, percent))

    @property
    def images_per_second(self) -> float:
        """At the median."""
        return self.task.batch_size / float(np.median(self.seconds))


@dataclass(frozen=True)
class Comparison:
    """All results, and what others used of the machine meanwhile, in cores."""

    results: list[Result]
    other_load: float


def compare_latency(candidates: Sequence[Candidate], rounds: int, calls: int = 3) -> Comparison:
    """Time them all: in every round, every candidate gets `calls` calls of every task.

    Raises:
        UserError: what a candidate raised while it loaded or ran.
    """
    workers: list[_Worker] = []
    try:
        for candidate in candidates:
            workers.append(_Worker(candidate))
        for worker in workers:
            worker.warm_up()
        load = _ForeignLoad([worker.pid for worker in workers])
        for _ in range(rounds):
            for worker in workers:
                worker.turn(calls)
        other = load.cores()
        results = [result for worker in workers for result in worker.finish()]
    finally:
        for worker in workers:
            worker.close()
    return Comparison(results, other)


class _Worker:
    """A candidate's process, from outside."""

    def __init__(self, candidate: Candidate) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, candidate.load), daemon=True)
        self._process.start()
        theirs.close()
        self._contender = candidate
        self.results = [Result(candidate, task) for task in candidate.tasks]
        load_seconds = self._ask(None)
        for result in self.results:
            result.load_seconds = load_seconds

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process.pid is not None
        return self._process.pid

    def warm_up(self) -> None:
        """Every shape is run before anything is timed."""
        for task in self._contender.tasks:
            self._ask((task, WARM_UP))

    def turn(self, calls: int) -> None:
        """One round."""
        for result in self.results:
            # The caches are somebody else's: one call brings them back.
            result.seconds += self._ask((result.task, calls + 1))[1:]

    def finish(self) -> list[Result]:
        """Its results, with the memory it needed."""
        memory = self._ask("memory")
        for result in self.results:
            result.memory = memory
        return self.results

    def close(self) -> None:
        """End its process."""
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, question: Any) -> Any:
        try:
            if question is not None:
                self._connection.send(question)
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise UserError(f"{self._contender.name}: its process ended unexpectedly") from None
        if isinstance(answer, str):
            raise UserError(f"{self._contender.name} ({self._contender.runtime}): {answer}")
        return answer


def _serve(connection: Connection, load: Callable[[], Segment]) -> None:
    """What a candidate's process does: load, then time what it is asked to."""
    try:
        began = time.perf_counter()
        segment = load()
        connection.send(time.perf_counter() - began)
        images: dict[Task, list[np.ndarray]] = {}
        while True:
            question = connection.recv()
            if question == "memory":
                connection.send(_peak_memory())
                continue
            task, calls = question
            batch = images.setdefault(task, task_images(task))
            connection.send([_timed(segment, batch) for _ in range(calls)])
    except (EOFError, OSError, KeyboardInterrupt):
        return
    except Exception as error:  # reported by the process that is talked to
        connection.send(str(error) or type(error).__name__)


def task_images(task: Task) -> list[np.ndarray]:
    """Drawn streets, enlarged: drawing 20 megapixels takes longer than segmenting them."""
    street = draw_street("hazy", 9, 0, STREET_SIZE)[0]
    return [resize_image(street, task.size)] * task.batch_size


def _timed(segment: Segment, batch: list[np.ndarray]) -> float:
    began = time.perf_counter()
    segment(batch)
    return time.perf_counter() - began


class _ForeignLoad:
    """How many cores processes that are not ours kept busy (Linux; 0 elsewhere)."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._began = time.perf_counter()
        self._busy, self._own = busy_seconds(), self._own_seconds()

    def cores(self) -> float:
        """Since it was made."""
        other = (busy_seconds() - self._busy) - (self._own_seconds() - self._own)
        return max(other, 0.0) / (time.perf_counter() - self._began)

    def _own_seconds(self) -> float:
        return sum(_process_seconds(pid) for pid in self._pids)


def busy_seconds() -> float:
    """Of all cores since the start of the machine."""
    with _readable(Path("/proc/stat")) as text:
        fields = [int(word) for word in text.split("\n")[0].split()[1:]] if text else []
    if not fields:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _process_seconds(pid: int) -> float:
    with _readable(Path(f"/proc/{pid}/stat")) as text:
        fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _peak_memory() -> float:
    """MiB of this process; what `getrusage` says includes the process that started it."""
    with _readable(Path("/proc/self/status")) as text:
        peaks = [line for line in text.splitlines() if line.startswith("VmHWM:")]
    if peaks:
        return int(peaks[0].split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def _readable(path: Path) -> Iterator[str]:
    try:
        yield path.read_text(encoding="utf-8")
    except OSError:
        yield ""
