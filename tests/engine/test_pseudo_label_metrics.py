"""Curves of the teacher's pseudo-labels."""

from __future__ import annotations

import math

import pytest
import torch

from t2sda.engine.metrics import read_back
from t2sda.engine.pseudo_label_metrics import PseudoLabelMetrics
from t2sda.structures import TARGET_PROBS, RandomStreams, Step, TeacherOutput
from tests.engine.conftest import batch_at
from tests.host_reads import HostReads

PROBS = ((0.9, 0.1, 0.0), (0.8, 0.1, 0.1), (0.2, 0.6, 0.2), (1.0, 0.0, 0.0))
"""Of four pixels."""


def step_at(iteration: int) -> Step:
    step = Step(iteration, 0, batch_at(0), RandomStreams(0, iteration, 0))
    step.teacher = TeacherOutput({TARGET_PROBS: torch.tensor(PROBS).T[None, :, None]})
    return step


def test_quality_confidence_and_share_by_hand() -> None:
    hook = PseudoLabelMetrics(("road", "sky", "car"), threshold=0.85, period=5, max_iter=12)
    step = step_at(4)
    with HostReads() as counter:
        hook.after_step(step)
    assert counter.reads == 0
    found = read_back(step.deferred_metrics)
    assert math.isnan(found.pop("pseudo_labels/confidence/car"))
    assert found == pytest.approx(
        {
            "pseudo_labels/quality": 2 / 4,
            "pseudo_labels/confidence/road": (0.9 + 0.8 + 1.0) / 3,
            "pseudo_labels/confidence/sky": 0.6,
            "pseudo_labels/share/road": 3 / 4,
            "pseudo_labels/share/sky": 1 / 4,
            "pseudo_labels/share/car": 0.0,
        },
        rel=1e-6,
    )


@pytest.mark.parametrize(("iteration", "due"), [(3, False), (4, True), (10, False), (11, True)])
def test_nothing_is_computed_in_other_steps(iteration: int, due: bool) -> None:
    step = step_at(iteration)
    PseudoLabelMetrics(("a", "b", "c"), None, period=5, max_iter=12).after_step(step)
    assert bool(step.deferred_metrics) == due
    assert "pseudo_labels/quality" not in step.deferred_metrics, "a run without a threshold"
