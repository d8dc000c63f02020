"""Scores of a run on a dataset: from evaluation.json or, where it has none, from the metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from t2sda.errors import UserError
from t2sda.evaluation.bootstrap import block_counts
from t2sda.evaluation.confusion import mean_of_present, shares
from t2sda.evaluation.entries import Entry, Scores

PREFIX = "evaluation/"
IOU = "IoU/"

Curve = list[tuple[int, float]]
"""(iteration, value) in order."""
Evaluation = tuple[int, Mapping[str, float]]
"""Iteration, and shares of 1 by the rest of their metrics' names; NaN where there is none."""


@dataclass(frozen=True)
class Score:
    """One network on one dataset, as shares of 1.

    Attributes:
        dataset: its name.
        iteration: of the weights.
        iou: by class, or by class group where the dataset's labels know no more; NaN for one that
            is neither there nor predicted.
        mean_iou: over the classes that are there.
        further: what else was measured: accuracy, means over some classes, calibration error.
        entry: what it was read from; None: from the run's metrics, which hold no more.
    """

    dataset: str
    iteration: int
    iou: Mapping[str, float]
    mean_iou: float
    further: Mapping[str, float]
    entry: Entry | None = None

    def image_scores(self) -> dict[str, float]:
        """Mean IoU of each labelled image, over the reported classes that it shows."""
        if self.entry is None:
            return {}
        images = self.entry.scores.images
        counts = block_counts(self.entry.scores, np.arange(len(images)))
        means = mean_of_present(shares(counts[..., 0], counts[..., 1])).tolist()
        return {
            image.name: mean for image, mean in zip(images, means, strict=True) if any(image.true)
        }


class Spread(NamedTuple):
    """Mean and sample standard deviation over runs, in percent."""

    mean: float
    std: float | None
    """None for a single run."""

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


def spread(shares: Iterable[float]) -> Spread | None:
    """Of shares of 1, those that are a number; None if there is none."""
    known = [100 * share for share in shares if not math.isnan(share)]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def newest_scores(
    entries: Sequence[Entry], evaluations: Mapping[str, Evaluation], path: Path
) -> dict[str, Score]:
    """The score of the newest weights on each dataset.

    Args:
        entries: of the run's evaluation.json.
        evaluations: the last in its metrics, by dataset.
        path: of evaluation.json, for messages.
    Raises:
        UserError: if no pixel of a dataset was labelled.
    """
    logged, scored = _logged(evaluations), _scored(entries, path)
    older = {
        name
        for name, score in scored.items()
        if name in logged and score.iteration < logged[name].iteration
    }
    return logged | {name: score for name, score in scored.items() if name not in older}


def _logged(evaluations: Mapping[str, Evaluation]) -> dict[str, Score]:
    return {
        dataset: Score(
            dataset,
            iteration,
            {name.removeprefix(IOU): own[name] for name in own if name.startswith(IOU)},
            own.get("mIoU", math.nan),
            {name: own[name] for name in own if name != "mIoU" and not name.startswith(IOU)},
        )
        for dataset, (iteration, own) in evaluations.items()
    }


def _scored(entries: Sequence[Entry], path: Path) -> dict[str, Score]:
    """Of the student rather than the teacher, without flips and scales rather than with them."""
    best: dict[str, Entry] = {}
    for entry in sorted(entries, key=_preference):
        best[entry.scores.dataset] = entry
    return {name: _score(entry, path) for name, entry in best.items()}


def _preference(entry: Entry) -> tuple[bool, bool, int, str]:
    protocol = entry.scores.protocol
    plain = not protocol.flip and protocol.scales == (1.0,)
    return entry.branch != "teacher", plain, entry.iteration or 0, entry.date


def _score(entry: Entry, path: Path) -> Score:
    scores = entry.scores
    if not any(map(any, scores.confusion)):
        raise UserError(
            f"{path}: no pixel of '{scores.dataset}' is labelled, so there is no score to report; "
            f"score the run on a labelled dataset"
        )
    return Score(
        scores.dataset,
        entry.iteration or 0,
        scores.reported.iou,
        scores.reported.mean_iou,
        _further(scores),
        entry,
    )


def _further(scores: Scores) -> dict[str, float]:
    found = {"accuracy": scores.accuracy, **scores.further_means}
    if scores.boundary_iou is not None:
        found["boundary IoU"] = scores.boundary_iou.mean_iou
    if scores.calibration is not None:
        found["calibration error"] = scores.calibration.ece
    return found
