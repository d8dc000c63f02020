"""From image files to label files: where the time goes, and what overlapping it saves.

Every candidate runs in a process of its own, one after another: decoding, network and encoding of
two would compete for the cores that one is to be measured on.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from t2sda.errors import UserError
from t2sda.images import read_image
from t2sda.inference.overlapped import overlapped
from t2sda.inference.results import write_png
from t2sda.runtime.predictor import FilePredictor, Predictor

from .latency import Task, busy_seconds, task_images

STAGES = ("decode", "copy", "network", "write")
WAITING = 2
"""Workers more than networks at once, as in `t2sda infer`: some wait for the disk."""

Load = Callable[[int, int], Predictor]
"""(threads, networks at once) -> a model."""


class Job(NamedTuple):
    """What one process measures.

    Attributes:
        name: of the model, in the table.
        load: can be pickled.
        runtime: in the table.
        files: images.
        rounds: how often each is segmented.
        cores: that there are to use.
    """

    name: str
    load: Load
    runtime: str
    files: tuple[Path, ...]
    rounds: int
    cores: int


@dataclass
class Breakdown:
    """Seconds an image, in one thread and overlapped.

    Attributes:
        job: what was measured.
        size: (height, width) of the first image.
        seconds: of every image, by stage; "copy" is all of `predict` but the network: fitting the
            image into what the network takes, and the labels back to the image's size.
        overlapped_seconds: of all images with many in work, per image, of every round.
        other_load: cores that other processes kept busy meanwhile.
    """

    job: Job
    size: tuple[int, int] = (0, 0)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    overlapped_seconds: list[float] = field(default_factory=list)
    other_load: float = 0.0

    def median(self, stage: str) -> float:
        """Seconds of an image."""
        return float(np.median(self.seconds[stage]))

    @property
    def one_by_one(self) -> float:
        """Seconds of an image, all stages one after another."""
        return float(np.median(np.sum([self.seconds[stage] for stage in STAGES], axis=0)))

    @property
    def overlapped(self) -> float:
        """Seconds of an image where many are in work at once."""
        return float(np.median(self.overlapped_seconds))


def break_down(job: Job) -> Breakdown:
    """Measure a job in a process of its own.

    Raises:
        UserError: what the job raised there, or that its process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, job).result()
        except BrokenProcessPool:
            raise UserError(
                f"{job.name}: its process ended unexpectedly; the system may have run out of "
                f"memory, of which every stream ({job.cores}) needs its own"
            ) from None


def measure(job: Job) -> Breakdown:
    """Measure a job in this process; results are written to a folder beside the images."""
    cv2.setNumThreads(1)
    target = job.files[0].with_name("labels.png")
    job = job._replace(files=tuple(file.resolve() for file in job.files))  # for messages
    found = Breakdown(job, read_image(job.files[0]).shape[:2])
    began, busy = time.perf_counter(), busy_seconds() - _own_seconds()
    model = job.load(job.cores, 1)
    clock = _NetworkClock(model)
    _one_by_one(model, clock, job.files[0], target)  # warms up
    for _ in range(job.rounds):
        for file in job.files:
            for stage, took in _one_by_one(model, clock, file, target).items():
                found.seconds[stage].append(took)
    del model
    found.overlapped_seconds += _overlapped_rounds(job, target)
    other = busy_seconds() - _own_seconds() - busy
    found.other_load = max(other, 0.0) / (time.perf_counter() - began)
    return found


def _one_by_one(
    model: Predictor, clock: _NetworkClock, file: Path, target: Path
) -> dict[str, float]:
    """Seconds of every stage."""
    moments = [time.perf_counter()]
    image = read_image(file)
    moments.append(time.perf_counter())
    clock.seconds = 0.0
    labels = model.predict(image)
    moments.append(time.perf_counter())
    write_png(target, labels)
    moments.append(time.perf_counter())
    decode, predict, write = np.diff(moments)
    return {
        "decode": decode,
        "copy": predict - clock.seconds,
        "network": clock.seconds,
        "write": write,
    }


def _overlapped_rounds(job: Job, target: Path) -> list[float]:
    """Seconds an image, as `t2sda infer` shares the cores: as many networks, of one thread each."""
    model = job.load(1, job.cores)

    def work(number: int) -> None:
        image = read_image(job.files[number % len(job.files)])
        write_png(target.with_name(f"labels_{number % len(job.files)}.png"), model.predict(image))

    count = len(job.files)
    list(overlapped(work, range(job.cores + WAITING), job.cores + WAITING))  # warms up
    seconds = []
    for _ in range(job.rounds):
        began = time.perf_counter()
        for _done in overlapped(work, range(2 * count), job.cores + WAITING):
            pass
        seconds.append((time.perf_counter() - began) / (2 * count))
    return seconds


class _NetworkClock:
    """Seconds in the network alone, on whatever device, since they were set to 0."""

    def __init__(self, model: Predictor) -> None:
        self.seconds = 0.0
        if isinstance(model, FilePredictor):
            run = model.run

            def timed(images: np.ndarray) -> np.ndarray:
                with self._running():
                    return run(images)

            model.run = timed
            return
        network = model.model  # type: ignore[attr-defined]  # of a checkpoint
        began: list[float] = []

        def start(*_: object) -> None:
            began.append(_now())

        def stop(*_: object) -> None:
            self.seconds += _now() - began.pop()

        network.register_forward_pre_hook(start)
        network.register_forward_hook(stop)

    @contextmanager
    def _running(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


def _now() -> float:
    """When what was asked of the GPU is done, too."""
    import torch  # of checkpoints alone

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _own_seconds() -> float:
    return sum(os.times()[:2])


def street_files(folder: Path, size: tuple[int, int], count: int) -> tuple[Path, ...]:
    """Drawn streets as PNG files, which is what Cityscapes has; in a folder of their own."""
    own = folder / "x".join(map(str, size))
    own.mkdir()
    image = task_images(Task(size, 1))[0]
    paths = tuple(own / f"street_{index}.png" for index in range(count))
    for index, path in enumerate(paths):
        write_png(path, np.roll(image, 64 * index, axis=1))
    return paths


def copied(images: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Images of the user's in a folder that results may lie in; links, not copies."""
    folder.mkdir()
    paths = tuple(folder / f"{index}{path.suffix}" for index, path in enumerate(images))
    for path, image in zip(paths, images, strict=True):
        path.symlink_to(image.resolve())
    return paths
