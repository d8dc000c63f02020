"""Work on many images at once, results in order, never more in memory than is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlapped(
    work: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[Result]:
    """`work(item)` of every item, in their order, on `num_workers` threads.

    While one thread waits for the network another decodes and a third encodes: decoders, encoders
    and runtimes release Python's lock. At most two items a worker are taken from `items` ahead of
    what the caller has got. After an error, or when the caller stops, nothing new is begun, and
    what was begun is finished.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="images")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= 2 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_batches(items: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """The items in lists of `batch_size`, in their order; the last list may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
