"""Curves from a run's metrics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from t2sda.analysis.curves import read_curves


def test_curves_by_class_and_iteration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"iteration": 5, "reweighting/weight/car": 0.25, "pseudo_labels/quality": 0.5, "lr": 1}\n'
        "[1]\n"
        '{"iteration": 1e400, "pseudo_labels/quality": 1}\n'
        f'{{"iteration": 7, "pseudo_labels/quality": {"9" * 400}}}\n'
        '{"iteration": 10, "pseudo_labels/confidence/car": null, "pseudo_labels/share/car": 0.1}\n'
        '{"iteration": 15, "reweighting/weight/car": 0.3, "pseudo_lab'
    )
    curves = read_curves(path)
    assert curves.quality == [(5, 0.5)]
    assert curves.per_class["class_weight"] == {"car": [(5, 0.25)]}
    assert curves.per_class["share"] == {"car": [(10, 0.1)]}
    ((at, confidence),) = curves.per_class["confidence"]["car"]
    assert at == 10
    assert math.isnan(confidence)
    assert "4 lines are no metrics and were passed over" in caplog.text


def test_a_run_without_metrics_has_no_curves(tmp_path: Path) -> None:
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert curves.per_class == {}
    assert curves.quality == []
