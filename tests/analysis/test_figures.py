"""Figures whose names are no words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from t2sda.analysis.classes import Classes
from t2sda.analysis.figures import (
    distances_figure,
    pseudo_labels_figure,
    similarity_figure,
    training_figure,
    write_figure,
)
from t2sda.analysis.study import RunAnalysis

NAMES = ("$\\oops$", "_first")
"""matplotlib would read the one as an equation, and leave the other out."""
FIGURES = (
    *("similarity", "iou", "center_distance", "pixel_distance", "pseudo_label_accuracy"),
    *("pseudo_label_coverage", "pseudo_label_accuracy_of_all"),
)


@pytest.mark.parametrize(
    "draw", [similarity_figure, distances_figure, pseudo_labels_figure, training_figure]
)
def test_names_stay_what_they_are(
    draw: Callable[[Sequence[RunAnalysis]], Figure], tmp_path: Path
) -> None:
    classes = Classes(NAMES, ((1, 2, 3), (4, 5, 6)), np.arange(256, dtype=np.uint8))
    runs = [RunAnalysis(name, Path("x.pth"), 1, classes, {}) for name in NAMES]
    for run in runs:
        run.per_class = {name: torch.tensor([0.5, 0.25]).double() for name in FIGURES}
        run.curves.per_class = {"confidence": {name: [(1, 0.5), (2, 0.4)] for name in NAMES}}
    figure = draw(runs)
    write_figure(tmp_path, "figure", figure)
    legend = {text.get_text().strip() for text in figure.legends[0].get_texts()}
    assert set(NAMES) <= legend
    assert "oops$" in (tmp_path / "figure.svg").read_text()
