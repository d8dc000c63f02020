"""What a run's metrics say over time: class weights, confidences, pseudo-labels."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

from t2sda.files import is_missing, open_regular

logger = logging.getLogger(__name__)

PER_CLASS = {
    "class_weight": "reweighting/weight/",
    "confidence": "pseudo_labels/confidence/",
    "share": "pseudo_labels/share/",
}
"""Curves with a value for each class, by what their metrics' names begin with."""
QUALITY = "pseudo_labels/quality"
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a line that is none fails with."""


@dataclass
class Curves:
    """Values by iteration; a class that had none at an iteration has NaN there.

    Attributes:
        per_class: of PER_CLASS, by class: [(iteration, value), …].
        quality: q of Eq. (S2): [(iteration, value), …].
    """

    per_class: dict[str, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)
    quality: list[tuple[int, float]] = field(default_factory=list)

    def add(self, line: dict[str, object]) -> None:
        """Take what one line of metrics.jsonl holds of them."""
        iteration = int(line["iteration"])  # type: ignore[call-overload]
        for name, value in line.items():
            if name == QUALITY:
                self.quality.append((iteration, _number(value)))
            for curve, prefix in PER_CLASS.items():
                if name.startswith(prefix):
                    of_class = self.per_class.setdefault(curve, {})
                    values = of_class.setdefault(name.removeprefix(prefix), [])
                    values.append((iteration, _number(value)))


def read_curves(path: Path) -> Curves:
    """The curves of a `metrics.jsonl`; without the file there are none.

    Lines are read one by one. What is no line of metrics, such as one that is being written just
    now, is passed over and said.
    """
    curves = Curves()
    if is_missing(path):
        return curves
    passed_over = 0
    with open_regular(path) as file:
        for text in file:
            try:
                curves.add(json.loads(text))
            except _DAMAGED:
                passed_over += 1
    if passed_over:
        logger.warning("%s: %d lines are no metrics and were passed over", path, passed_over)
    return curves


def _number(value: object) -> float:
    return math.nan if value is None else float(value)  # type: ignore[arg-type]
