"""The methods compute what they computed when their losses were recorded.

Where a change is meant, record anew with `python -m tests.integration.golden_runs` and say why in
CHANGELOG.md.
"""

from __future__ import annotations

import json
import math

import pytest

from tests.integration.golden_runs import METHODS, RECORD, STEPS, losses_of

RECORDED = json.loads(RECORD.read_text())


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_the_recorded_ones(name: str) -> None:
    losses = losses_of(name)
    assert len(losses) == len(RECORDED[name]) == STEPS
    for step, (found, recorded) in enumerate(zip(losses, RECORDED[name], strict=True)):
        assert found.keys() == recorded.keys()
        for loss, value in found.items():
            # float64, but translated and augmented images are float32.
            assert value == pytest.approx(recorded[loss], rel=1e-6, abs=1e-9), (step, loss)


def test_what_is_recorded_says_something() -> None:
    assert RECORDED.keys() == METHODS.keys()
    for name, steps in RECORDED.items():
        for loss in steps[0]:
            values = [step[loss] for step in steps]
            assert all(map(math.isfinite, values)), name
            assert len(set(values)) == STEPS, f"{name}: {loss} does not change"
