"""One function over many indices in processes: order, errors, deaths."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from t2sda.data.parallel import CHUNK, CHUNKS_AHEAD, mapped
from t2sda.errors import UserError


@pytest.mark.parametrize("num_processes", [1, 3])
def test_results_come_in_order(num_processes: int) -> None:
    offset = 5  # a local function: what is forked need not be importable
    results = mapped(lambda index: index + offset, 50, "adding", num_processes=num_processes)
    assert list(results) == list(range(5, 55))


@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_error_arrives_as_it_was_raised(num_processes: int) -> None:
    def refuse(index: int) -> int:
        if index == 20:
            raise UserError("label 20 is damaged")
        return index

    results = mapped(refuse, 40, "reading", num_processes=num_processes)
    with pytest.raises(UserError, match="^label 20 is damaged$"):
        list(results)


def test_a_process_that_dies_is_reported_instead_of_waited_for() -> None:
    parent = os.getpid()

    def die(index: int) -> int:
        if index == 20 and os.getpid() != parent:
            os._exit(1)
        return index

    with pytest.raises(UserError, match="reading: a process died; .*out of memory"):
        list(mapped(die, 40, "reading", num_processes=2))


def test_results_that_nobody_takes_do_not_pile_up() -> None:
    begun = multiprocessing.Value("i", 0)

    def count(index: int) -> int:
        with begun.get_lock():
            begun.value += 1
        return index

    results = mapped(count, 1000, "packing", num_processes=2)
    assert next(results) == 0
    time.sleep(0.3)  # long enough for all 1000, were they asked for
    assert begun.value <= 2 * CHUNKS_AHEAD * CHUNK
    assert list(results) == list(range(1, 1000))


def test_nothing_to_do() -> None:
    assert list(mapped(abs, 0, "nothing")) == []
