"""The loader's processes: which file each is on, that none hangs for ever, that all end."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import connection, util
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from t2sda.data.parallel import die_with
from t2sda.errors import UserError

_MAX_BYTES = 1000
_LEFT_TO_THE_TRAINER = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""What a terminal or a batch system sends to the whole group; the trainer finishes its step."""

_abandoned: list[Iterator[Any]] = []
"""torch's iterators whose processes were killed; tidying up, they may wait for a lock for ever."""


class WorkerWatch:
    """Watches the processes of one DataLoader.

    They ignore the signals that ask a process to end, so they are killed: when they hang, when the
    run fails, at the exit of the training process, and by themselves when it has gone.

    Args:
        num_workers: number of processes.
        timeout: seconds without a batch after which they are taken to hang; 0: never.
    """

    def __init__(self, num_workers: int, timeout: float) -> None:
        self.timeout = timeout
        self.workers: list[BaseProcess] = []
        self._files = multiprocessing.RawArray(ctypes.c_char * _MAX_BYTES, num_workers)
        self._parent = os.getpid()
        self._hung = ""

    def prepare_worker(self) -> None:
        """Called in every process before its first sample."""
        for name in _LEFT_TO_THE_TRAINER:
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        die_with(self._parent)

    def announce(self, worker: int, file: str) -> None:
        """Called in the process numbered `worker`: it is on `file` from now on; "": on none."""
        self._files[worker].value = file.encode(errors="surrogateescape")[-_MAX_BYTES + 1 :]

    def started(self, loader: DataLoader) -> Iterator[Any]:
        """`iter(loader)`, with its processes known."""
        batches = iter(loader)
        self.workers = getattr(batches, "_workers", [])
        # At exit Python waits for them; this comes before.
        util.Finalize(self, _kill, (self.workers,), exitpriority=0)
        return batches

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch, None at the end; after `timeout` seconds without one all are killed.

        torch's own timeout leaves out the hand-over, in which the rest of a message, or the memory
        that it is about, is waited for.
        """
        timer = threading.Timer(self.timeout, self._end_the_wait)
        if self.workers and self.timeout:
            timer.start()
        try:
            return next(batches, None)
        finally:
            timer.cancel()

    def _end_the_wait(self) -> None:
        """In a thread; torch raises RuntimeError in the waiting one when a process is killed."""
        self._hung = self._files_of(self.workers) or "no file: starting, or handing over a batch"
        for worker in self.workers:
            worker.kill()

    def explained(self, error: Exception) -> Exception:
        """What the death or the hanging of a process means for the user; any other error as it is.

        torch reports it wherever the training process happens to be, not only in the loader.
        """
        if self._hung:
            return UserError(
                f"a loader process hangs: no batch for {self.timeout:g} s (DATA.WORKER_TIMEOUT). "
                f"It was on {self._hung}. See whether that can be read; if the disk is only slow, "
                f"raise DATA.WORKER_TIMEOUT"
            )
        if isinstance(error, (EOFError, ConnectionError)):  # it may be dying only now
            connection.wait([worker.sentinel for worker in self.workers], timeout=1)
        dead = [worker for worker in self.workers if worker.exitcode]
        if not dead:
            return error
        code = dead[0].exitcode or 0
        return UserError(
            f"a loader process died ({signal.Signals(-code).name if code < 0 else code}) while it "
            f"was on {self._files_of(dead) or 'no file'}; memory, or shared memory in /dev/shm "
            f"(docker: --shm-size), may be full: try a smaller DATA.NUM_WORKERS, or 0 to see the "
            f"error in the training process"
        )

    def _files_of(self, workers: list[BaseProcess]) -> str:
        """What those of the processes that are on a file are on."""
        pairs = zip(self.workers, self._files, strict=True)
        files = [file.value for worker, file in pairs if worker in workers and file.value]
        return ", ".join(file.decode(errors="replace") for file in files)

    def kill(self, batches: Iterator[Any] | None = None) -> None:
        """End what still runs; of an iterator that failed nothing is asked any more."""
        if batches is not None:
            _abandoned.append(batches)
        _kill(self.workers)


def _kill(workers: list[BaseProcess]) -> None:
    """End processes; torch, which takes their death for an error, is not to see it."""
    if not any(worker.is_alive() for worker in workers):
        return
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(5)
    if in_main:
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
