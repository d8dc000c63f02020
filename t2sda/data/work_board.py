"""Which file every loader process is on, in shared memory that outlives the process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from typing import NamedTuple

_MAX_BYTES = 1000


class _Row(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_int64),
        ("since", ctypes.c_double),
        ("text", ctypes.c_char * (_MAX_BYTES + 1)),
    )


class Work(NamedTuple):
    """What one process was doing when it was last heard of."""

    pid: int
    file: str
    """Empty between two samples."""
    seconds: float
    """How long it has been on it."""


class WorkBoard:
    """One row a process, written by it and read by the training process when something is wrong.

    Args:
        num_workers: number of processes.
    """

    def __init__(self, num_workers: int) -> None:
        self._rows = multiprocessing.RawArray(_Row, num_workers)

    def write(self, worker: int, file: str) -> None:
        """Called in the process numbered `worker`: it is on `file` from now on."""
        row = self._rows[worker]
        row.pid = os.getpid()
        row.since = time.time()
        row.text = file.encode(errors="surrogateescape")[-_MAX_BYTES:]

    def work(self) -> list[Work]:
        """What the processes that have started are doing."""
        now = time.time()
        return [
            Work(row.pid, row.text.decode(errors="replace"), now - row.since)
            for row in self._rows
            if row.pid
        ]
