"""The lines of a `metrics.jsonl`, also of one that is being written or was damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from t2sda.files import is_missing, open_regular

_NO_LINE = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError),  # numbers and nesting without end
)


_MOST_ITERATIONS = 1 << 53
_LARGEST = 1e100
"""What is more is no value of a curve."""


class MetricLine(NamedTuple):
    """Numbers after `iteration` steps, by name; NaN for null, infinity and nonsense."""

    iteration: int
    metrics: dict[str, float]


def metric_lines(path: Path) -> Iterator[MetricLine | None]:
    """Line by line, None for what is no line of metrics; a missing file has no lines.

    The last line of a run that is writing, or was killed, may be half there.
    """
    if is_missing(path):
        return
    with open_regular(path) as file:
        for text in file:
            try:
                yield _line(json.loads(text))
            except _NO_LINE:
                yield None


def _line(content: Any) -> MetricLine:
    iteration = int(content.pop("iteration"))
    if not 0 <= iteration < _MOST_ITERATIONS:
        raise ValueError(iteration)
    numbers = {name: math.nan if value is None else float(value) for name, value in content.items()}
    return MetricLine(
        iteration,
        {name: value if abs(value) < _LARGEST else math.nan for name, value in numbers.items()},
    )
