"""Lines of metrics, whole and damaged."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from t2sda.engine.metric_lines import metric_lines


def test_numbers_by_name_and_null_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 5, "lr": 1, "loss": 0.5}\n{"iteration": 6, "loss": null}\n')
    first, second = metric_lines(path)
    assert first == (5, {"lr": 1.0, "loss": 0.5})
    assert second is not None
    assert second.iteration == 6
    assert math.isnan(second.metrics["loss"])


@pytest.mark.parametrize(
    "text",
    [
        '{"iteration": 5, "loss": 0.',
        '{"loss": 1}',
        '{"iteration": Infinity}',
        '{"iteration": NaN}',
        '{"iteration": 1, "loss": "much"}',
        f'{{"iteration": 1, "loss": 1{400 * "0"}}}',
        "[1]",
        "\x00",
        100_000 * "[",
    ],
)
def test_what_is_no_line_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{text}\n{{"iteration": 7}}\n')
    assert list(metric_lines(path)) == [None, (7, {})]


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert list(metric_lines(tmp_path / "metrics.jsonl")) == []
