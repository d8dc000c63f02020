"""The one queue of a server: bounded, first come, first served."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

from t2sda.serving.answers import RefusedError

Result = TypeVar("Result")
REMEMBERED = 100
"""Requests whose time tells how long the next ones take."""


class Queue:
    """At most `capacity` requests at once, `num_workers` of them in work.

    Args:
        capacity: of those that wait and are worked on together.
        num_workers: threads.
    """

    def __init__(self, capacity: int, num_workers: int) -> None:
        self.capacity = capacity
        self.num_workers = num_workers
        self.length = 0
        self._seconds: deque[float] = deque([1.0], maxlen=REMEMBERED)
        self._turns = asyncio.Semaphore(num_workers)  # wakes those that wait in their order
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="segment")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place until the block ends.

        Raises:
            RefusedError: 503 with the seconds after which to try again, if all are taken.
        """
        if self.length >= self.capacity:
            seconds = self.seconds_until_empty()
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.capacity} requests are waiting or in work, which is all that this server "
                f"takes at once; try again in {seconds} s",
                retry_after=seconds,
            )
        self.length += 1
        try:
            yield
        finally:
            self.length -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a worker is free; it is held until the block ends."""
        async with self._turns:
            yield

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in a worker; to be awaited in `turn`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            return await loop.run_in_executor(self._threads, function, *arguments)
        finally:
            self._seconds.append(loop.time() - started)

    def seconds_until_empty(self) -> int:
        """By the usual time of a request, at least 1."""
        usual = statistics.median(self._seconds)
        return max(math.ceil(usual * self.length / self.num_workers), 1)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
