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


class _Row(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_int64), ("file", ctypes.c_char * (_MAX_BYTES + 1)))


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
        self.processes: list[BaseProcess] = []
        self._rows = multiprocessing.RawArray(_Row, num_workers)
        self._parent = os.getpid()
        self._hung = ""

    def prepare_worker(self, worker: int) -> None:
        """Called in every process before its first sample."""
        for name in _LEFT_TO_THE_TRAINER:
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        self._rows[worker].pid = os.getpid()
        die_with(self._parent)

    def announce(self, worker: int, file: str) -> None:
        """Called in the process numbered `worker`: it is on `file` from now on; "": on none."""
        self._rows[worker].file = file.encode(errors="surrogateescape")[-_MAX_BYTES:]

    def started(self, loader: DataLoader) -> Iterator[Any]:
        """`iter(loader)`, with its processes known."""
        others = multiprocessing.active_children()
        batches = iter(loader)
        self.processes = [p for p in multiprocessing.active_children() if p not in others]
        # At exit Python waits for them; this comes before.
        util.Finalize(self, _kill, (self.processes,), exitpriority=0)
        return batches

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch, None at the end; after `timeout` seconds without one all are killed.

        torch's own timeout leaves out the hand-over, in which the rest of a message, or the memory
        that it is about, is waited for.
        """
        if not self.processes or not self.timeout:
            return next(batches, None)
        timer = threading.Timer(self.timeout, self._end_the_wait)
        timer.daemon = True
        timer.start()
        try:
            return next(batches, None)
        finally:
            timer.cancel()

    def _end_the_wait(self) -> None:
        """In a thread; torch raises RuntimeError in the waiting one when a process is killed."""
        self._hung = self._files_of(self.processes) or "no file: handing over a batch, or starting"
        for process in self.processes:
            process.kill()

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
            connection.wait([process.sentinel for process in self.processes], timeout=1)
        dead = [process for process in self.processes if process.exitcode]
        if not dead:
            return error
        files = self._files_of(dead)
        why = f"exit code {dead[0].exitcode}"
        advice = (
            "the system may have run out of memory: try a smaller DATA.NUM_WORKERS, or 0 to see "
            "the error in the training process"
        )
        if dead[0].exitcode == -signal.SIGBUS:
            advice = (
                "shared memory may be full: enlarge /dev/shm (docker: --shm-size), or try a "
                "smaller DATA.NUM_WORKERS"
            )
        elif dead[0].exitcode is not None and dead[0].exitcode < 0:
            why = signal.Signals(-dead[0].exitcode).name
        where = f" while it was on {files}" if files else ""
        return UserError(f"a loader process died{where} ({why}); {advice}")

    def _files_of(self, processes: list[BaseProcess]) -> str:
        pids = {process.pid for process in processes}
        files = (row.file.decode(errors="replace") for row in self._rows if row.pid in pids)
        return ", ".join(filter(None, files))

    def kill(self, batches: Iterator[Any] | None = None) -> None:
        """End what still runs; of an iterator that failed nothing is asked any more."""
        if batches is not None:
            _abandoned.append(batches)
        _kill(self.processes)


def _kill(processes: list[BaseProcess]) -> None:
    """End processes; torch, which takes their death for an error, is not to see it."""
    if not any(process.is_alive() for process in processes):
        return
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    for process in processes:
        process.kill()
    for process in processes:
        process.join(5)
    if in_main:
        signal.signal(signal.SIGCHLD, handler)
