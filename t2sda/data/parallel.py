"""One function over many files, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import cv2

from t2sda.errors import UserError

Result = TypeVar("Result")
Progress = Callable[[Sequence[int], str], Iterable[int]]
"""Wraps indices to show how far their consumer is; also gets what is done, in words."""

CHUNK = 8
"""Indices that a process takes at once."""
CHUNKS_AHEAD = 2
"""Chunks a process that are begun before their results are wanted: results may be large."""


def worker_context() -> BaseContext:
    """How processes start: forked where it can be, which Python 3.14 no longer does by itself.

    Nothing is imported again then, plugins need not be importable, and memory is shared.
    """
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if "fork" in methods else None)


def unseen(indices: Sequence[int], what: str) -> Iterable[int]:
    """The progress that nobody sees."""
    return indices


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def mapped(
    function: Callable[[int], Result],
    count: int,
    what: str,
    progress: Progress = unseen,
    num_processes: int | None = None,
) -> Iterator[Result]:
    """`function(0)` to `function(count - 1)`, in this order, computed in processes.

    Args:
        function: what it raises is raised here, for the first index.
        count: number of indices.
        what: in words, for the progress.
        progress: shows how many results have come.
        num_processes: default: one a core; with one, all is done in this process.
    Raises:
        UserError: if a process dies.
    """
    num_processes = min(num_processes or num_cores(), -(-count // CHUNK))
    if num_processes <= 1:
        for index in progress(range(count), what):
            yield function(index)
        return
    pool = ProcessPoolExecutor(
        num_processes,
        mp_context=worker_context(),
        initializer=_prepare,
        initargs=(function, os.getpid()),
    )
    try:
        results = _in_order(pool, count, CHUNKS_AHEAD * num_processes)
        for _ in progress(range(count), what):
            yield next(results)
    except BrokenProcessPool:
        raise UserError(
            f"{what}: a process died; the system may have run out of memory. Free some and start "
            f"again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def die_with(parent: int) -> None:
    """End this process within a second of its parent's end, whatever it is doing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_function: Callable[[int], Any]


def _prepare(function: Callable[[int], Any], parent: int) -> None:
    """Of a process: keep the function, which is large with the dataset it is bound to."""
    global _function
    _function = function
    cv2.setNumThreads(0)
    die_with(parent)


def _in_order(pool: ProcessPoolExecutor, count: int, most_ahead: int) -> Iterator[Any]:
    """Results by index; no more than `most_ahead` chunks are begun or wait to be taken."""
    ahead: deque[Future[list[Any]]] = deque()
    for first in range(0, count, CHUNK):
        ahead.append(pool.submit(_call, range(first, min(first + CHUNK, count))))
        if len(ahead) == most_ahead:
            yield from ahead.popleft().result()
    while ahead:
        yield from ahead.popleft().result()


def _call(indices: range) -> list[Any]:
    return [_function(index) for index in indices]
