"""Batches for the trainer: worker processes, and the messages of what goes wrong in them."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, get_worker_info

from t2sda.config import SCHEMA, Field
from t2sda.data.domains import DomainPairs, DomainSample, FailedSample, collate
from t2sda.data.replacements import tell
from t2sda.data.samplers import MicroBatchPositions
from t2sda.data.work_board import WorkBoard
from t2sda.errors import UserError
from t2sda.signals import leave_signals_to_parent
from t2sda.structures import DomainBatch

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
        num_workers: int,
        pin_memory: bool,
        timeout: float = 0,
        report: Callable[[str], None] = tell,
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self.report = report
        self._board = WorkBoard(num_workers)
        self._loader: DataLoader = DataLoader(
            pairs,
            batch_sampler=positions,
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            timeout=timeout if num_workers else 0,
            worker_init_fn=functools.partial(_prepare_worker, self._board),
            persistent_workers=False,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[DomainBatch]:
        """Batches; raises UserError with the message of a file that could not be used."""
        batches = iter(self._loader)
        while True:
            try:
                batch, skipped = next(batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, ConnectionError) as error:
                raise self.explained(error) from None
            self._count(skipped)
            if isinstance(batch, FailedSample):
                raise UserError(batch.message)
            yield batch

    def explained(self, error: Exception) -> Exception:
        """What the death or the hanging of a loader process means for the user; any other error as
        it is.

        torch reports it wherever the training process happens to be, not only in the loader.
        """
        text = str(error)
        if "DataLoader timed out" in text:
            return self._hung(text)
        if "DataLoader worker" not in text and not isinstance(error, (EOFError, ConnectionError)):
            return error
        pids = {int(number) for number in re.findall(r"\d+", text)}
        files = [work.file for work in self._board.work() if work.pid in pids and work.file]
        where = f" while it was on {', '.join(files)}" if files else ""
        return UserError(
            f"a loader process died{where} ({error}); the system may have run out of memory: try a "
            f"smaller DATA.NUM_WORKERS, or 0 to see the error in the training process"
        )

    def _hung(self, text: str) -> UserError:
        """The message, once the processes are gone: they ignore SIGTERM, so leaving would hang."""
        busy = [work for work in self._board.work() if work.file]
        for work in self._board.work():
            with contextlib.suppress(ProcessLookupError):
                os.kill(work.pid, signal.SIGKILL)
        files = ", ".join(f"{work.file} for {work.seconds:.0f} s" for work in busy) or "no file"
        return UserError(
            f"a loader process hangs ({text}); they were on {files}. See whether that file can be "
            f"read; if the disk is only slow, raise DATA.WORKER_TIMEOUT"
        )

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
    return LoadedBatch(collate(samples), tuple(skipped))


def _prepare_worker(board: WorkBoard, worker: int) -> None:
    """One thread a worker, and signals left to the trainer, which finishes its step first."""
    leave_signals_to_parent()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    info = get_worker_info()
    assert info is not None
    assert isinstance(info.dataset, DomainPairs)
    info.dataset.announce = functools.partial(board.write, worker)
    board.write(worker, "")
