"""Work on many images at once."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from t2sda.inference.overlapped import overlapped


def test_results_come_in_order_whoever_is_first() -> None:
    def slower_first(number: int) -> int:
        time.sleep(0.004 * (5 - number % 5))
        return number

    assert list(overlapped(slower_first, range(20), 3)) == list(range(20))


def test_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)
    assert len(list(overlapped(lambda _: together.wait(), range(3), 3))) == 3


def test_little_is_taken_ahead() -> None:
    taken = itertools.count()
    results = overlapped(lambda number: number, (next(taken) for _ in range(100)), 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert next(taken) <= 6


def test_after_an_error_what_was_begun_is_finished_and_nothing_new_begun() -> None:
    finished: list[int] = []

    def fail_at_two(number: int) -> None:
        if number == 2:
            raise ValueError("two")
        finished.append(number)

    with pytest.raises(ValueError, match="two"):
        list(overlapped(fail_at_two, range(100), 1))
    assert {0, 1} <= set(finished)
    assert len(finished) < 8


def test_after_an_error_what_waits_is_not_begun() -> None:
    begun: list[int] = []
    released = threading.Event()

    def fail_first(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("zero")
        released.wait(10)

    release = threading.Timer(0.3, released.set)
    release.start()
    with pytest.raises(ValueError, match="zero"):
        list(overlapped(fail_first, range(100), 2))
    release.join()
    assert 3 not in begun  # two are held by the workers, the fourth waited
