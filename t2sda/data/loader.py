"""Batches for the trainer: worker processes, and the messages of what goes wrong in them."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Generator
from typing import NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, get_worker_info

from t2sda.config import SCHEMA, Field
from t2sda.data.domains import DomainPairs
from t2sda.data.parallel import worker_context
from t2sda.data.samplers import MicroBatchPositions
from t2sda.data.samples import DomainSample, FailedSample, collate
from t2sda.data.worker_watch import WorkerWatch
from t2sda.errors import UserError
from t2sda.resources import shortage
from t2sda.structures import DomainBatch

logger = logging.getLogger(__name__)

SCHEMA.declare(
    "DATA",
    {
        "NUM_WORKERS": Field(
            2,
            "loader processes per rank; 0 loads in the training process. The batches are the same "
            "for any number",
            low=0,
        )
    },
)
SCHEMA.declare(
    "DATA",
    {
        "WORKER_TIMEOUT": Field(
            600,
            "a loader process that gives no batch for so long is taken to hang: the run stops and "
            "says which file it was on; 0: wait for ever",
            unit="seconds",
            low=0,
        )
    },
    when=lambda cfg: cfg.DATA.NUM_WORKERS > 0,
    when_text="DATA.NUM_WORKERS is not 0",
)


class LoadedBatch(NamedTuple):
    """What a process hands over."""

    batch: DomainBatch | FailedSample
    skipped: tuple[str, ...]


class DomainLoader:
    """Batches in order, prefetched by worker processes.

    Args:
        pairs: samples by position.
        positions: which samples make which batch.
        num_workers: processes; 0 loads in this one.
        pin_memory: copy batches to page-locked memory, for a GPU.
        timeout: seconds without a batch after which the processes are taken to hang; 0: never.
        report: called with the message of a skipped file, once a file.
    Attributes:
        skipped: how often a file was skipped, by message.
    """

    def __init__(
        self,
        pairs: DomainPairs,
        positions: MicroBatchPositions,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 0,
        report: Callable[[str], None] = logger.warning,
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self.report = report
        self._watch = WorkerWatch(num_workers, timeout)
        self._loader: DataLoader = DataLoader(
            pairs,
            batch_sampler=positions,
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            multiprocessing_context=worker_context() if num_workers else None,
            worker_init_fn=functools.partial(_prepare_worker, self._watch),
        )
        self._running: Generator[DomainBatch] | None = None

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Generator[DomainBatch]:
        """Batches; raises UserError with the message of a file that could not be used."""
        self.close()
        self._running = self._batches()
        return self._running

    def close(self) -> None:
        """End the processes, wherever the batches are; nothing to do after the last batch."""
        if self._running is not None:
            self._running.close()
        self._watch.kill()

    def report_skipped(self) -> None:
        """Warn once more of what was skipped, in numbers."""
        if self.skipped:
            self.report(
                f"DATA.ON_ERROR skip: {self.skipped.total()} samples were replaced because of "
                f"{len(self.skipped)} files that cannot be used"
            )

    def explained(self, error: Exception) -> Exception:
        """What an error of the training process means, if a loader process is behind it."""
        return self._watch.explained(error)

    def _batches(self) -> Generator[DomainBatch]:
        batches = self._watch.started(self._loader)
        while True:
            try:
                loaded = self._watch.next(batches)
            except (RuntimeError, EOFError, ConnectionError) as error:
                explained = self.explained(error)
                self._watch.kill(batches)
                raise explained from None
            if loaded is None:
                return
            self._count(loaded.skipped)
            if isinstance(loaded.batch, FailedSample):
                raise UserError(loaded.batch.message)
            yield loaded.batch

    def _count(self, skipped: tuple[str, ...]) -> None:
        for message in skipped:
            if message not in self.skipped:
                self.report(f"skipped: {message}")
            self.skipped[message] += 1


def _collate(samples: list[DomainSample | FailedSample]) -> LoadedBatch:
    skipped = [
        message
        for sample in samples
        if isinstance(sample, DomainSample)
        for message in sample.skipped
    ]
    batch = collate(samples)
    if isinstance(batch, DomainBatch) and get_worker_info() is not None:
        try:  # torch does it later, where the error is lost, and the batch with it
            for tensor in filter(torch.is_tensor, vars(batch).values()):
                tensor.share_memory_()
        except (RuntimeError, OSError) as error:
            batch = FailedSample(shortage(error) or f"a batch cannot be handed over ({error})")
    return LoadedBatch(batch, tuple(skipped))


def _prepare_worker(watch: WorkerWatch, worker: int) -> None:
    """One thread a process, and watched."""
    watch.prepare_worker()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    info = get_worker_info()
    assert info is not None
    assert isinstance(info.dataset, DomainPairs)
    info.dataset.announce = functools.partial(watch.announce, worker)
