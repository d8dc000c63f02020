"""Seconds by part: an inner part's are not the outer one's, and nothing is lost."""

from __future__ import annotations

import pytest
import torch

from benchmarks import parts
from benchmarks.parts import REST, Stopwatch, table


class Clock:
    """Advances when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def process_time(self) -> float:
        return self.seconds


class Owner:
    """With parts that take known times."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def inner(self, name: str) -> str:
        self.clock.seconds += 1.0
        return name

    def outer(self) -> str:
        self.clock.seconds += 2.0
        found = self.inner("first") + self.inner("second")
        self.clock.seconds += 4.0
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(parts, "time", clock)
    return clock


def test_inner_parts_are_taken_off_outer_ones(clock: Clock) -> None:
    watch, owner = Stopwatch(torch.device("cpu")), Owner(clock)
    watch.watch_(owner, "inner", lambda name: f"inner {name}")
    watch.watch_(owner, "outer", "outer")

    def whole() -> None:
        clock.seconds += 8.0
        assert owner.outer() == "firstsecond"

    expected = {REST: 8.0, "outer": 6.0, "inner first": 1.0, "inner second": 1.0}
    assert watch.round(whole) == expected
    assert watch.round(whole) == expected  # each round begins anew


def test_table_has_medians_and_their_shares() -> None:
    rounds = [{"a": 0.1, "b": 0.3}, {"a": 0.2, "b": 0.3}, {"a": 0.1, "b": 9.0}]
    assert table("what", rounds).splitlines()[3:] == [
        "| a | 100.0 | 25.0% |",
        "| b | 300.0 | 75.0% |",
        "| all | 400.0 | |",
    ]
