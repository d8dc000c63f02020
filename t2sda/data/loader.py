"""Batches for the trainer: worker processes, and the messages of what goes wrong in them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader

from t2sda.config import SCHEMA, Field
from t2sda.data.domains import DomainPairs, FailedSample, collate
from t2sda.data.samplers import MicroBatchPositions
from t2sda.errors import UserError
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


class DomainLoader:
    """Batches in order, prefetched by worker processes.

    Args:
        pairs: samples by position.
        positions: which samples make which batch.
        num_workers: processes; 0 loads in this one.
        pin_memory: copy batches to page-locked memory, for a GPU.
    """

    def __init__(
        self, pairs: DomainPairs, positions: MicroBatchPositions, num_workers: int, pin_memory: bool
    ) -> None:
        self._loader: DataLoader = DataLoader(
            pairs,
            batch_sampler=positions,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            worker_init_fn=_prepare_worker,
            persistent_workers=False,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[DomainBatch]:
        """Batches; raises UserError with the message of a file that could not be used."""
        batches = iter(self._loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, ConnectionError) as error:
                raise explained(error) from None
            if isinstance(batch, FailedSample):
                raise UserError(batch.message)
            yield batch


def _prepare_worker(_: int) -> None:
    """One thread a worker, and signals left to the trainer, which finishes its step first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def explained(error: Exception) -> Exception:
    """What the death of a loader process means for the user; any other error as it is.

    torch reports it wherever the training process happens to be, not only in the loader.
    """
    if "DataLoader worker" in str(error) or isinstance(error, (EOFError, ConnectionError)):
        return UserError(
            f"a loader process died ({error}); the system may have run out of memory: try a "
            f"smaller DATA.NUM_WORKERS, or 0 to see the error in the training process"
        )
    return error
