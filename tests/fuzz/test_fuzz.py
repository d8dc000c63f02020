"""Hostile inputs of every kind: each is used rightly or refused in one message; see the harness."""

from __future__ import annotations

import pytest

from tests.fuzz import (
    target_checkpoint,
    target_config,
    target_dataset,
    target_image,
    target_metadata,
)
from tests.fuzz.harness import Hang, Plant, Target, check, faults, first_fault

TARGETS: dict[str, Target] = {
    "config": target_config.TARGET,
    "dataset": target_dataset.TARGET,
    "checkpoint": target_checkpoint.TARGET,
    "image": target_image.IMAGE,
    "label": target_image.LABEL,
    "metadata": target_metadata.TARGET,
}
FEW, MANY = 100, 2000


@pytest.mark.parametrize("name", TARGETS)
def test_no_fault_among_100_inputs(name: str) -> None:
    check(TARGETS[name], FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_fault_among_2000_inputs(name: str) -> None:
    assert faults(TARGETS[name], MANY) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "plant"),
    [
        pytest.param(name, plant, id=f"{name}{plant.__name__}")
        for name, target in TARGETS.items()
        for plant in target.plants
    ],
)
def test_a_check_that_is_taken_away_is_missed(
    name: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert first_fault(TARGETS[name], MANY) is not None


def test_a_hang_and_a_command_are_faults() -> None:
    import os
    import time

    from hypothesis import strategies as st

    from tests.fuzz import harness

    patch = pytest.MonkeyPatch()
    patch.setattr(harness, "TIME_LIMIT", 0.05)
    with patch.context(), pytest.raises(Hang):
        check(Target(st.just(0), lambda *_: time.sleep(1), ()), 1)
    patch.undo()
    with pytest.raises(AssertionError, match=r"os.system"):
        check(Target(st.just(0), lambda *_: os.system("true") and None, ()), 1)
