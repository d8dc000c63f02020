"""What a run's metrics say over time: class weights, confidences, pseudo-labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from t2sda.engine.metric_lines import MetricLine, metric_lines

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

    def add(self, line: MetricLine) -> None:
        """Take what one line of metrics.jsonl holds of them."""
        for name, value in line.metrics.items():
            if name == QUALITY:
                self.quality.append((line.iteration, value))
            for curve, prefix in PER_CLASS.items():
                if name.startswith(prefix):
                    of_class = self.per_class.setdefault(curve, {})
                    values = of_class.setdefault(name.removeprefix(prefix), [])
                    values.append((line.iteration, value))


def read_curves(path: Path) -> Curves:
    """The curves of a `metrics.jsonl`; without the file there are none.

    Lines are read one by one. What is no line of metrics, such as one that is being written just
    now, is passed over and said.
    """
    curves = Curves()
    passed_over = 0
    for line in metric_lines(path):
        if line is None:
            passed_over += 1
        else:
            curves.add(line)
    if passed_over:
        logger.warning("%s: %d lines are no metrics and were passed over", path, passed_over)
    return curves
