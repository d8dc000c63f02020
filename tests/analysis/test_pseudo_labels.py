"""Accuracy and coverage of pseudo-labels by hand."""

from __future__ import annotations

import torch

from t2sda.analysis.pseudo_labels import PseudoLabelScores


def test_accuracy_coverage_and_quality_by_hand() -> None:
    scores = PseudoLabelScores(3, threshold=0.9)
    labels = torch.tensor([[0, 0, 0, 0], [1, 1, 255, 1]])
    pseudo_labels = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 1]])
    confidence = torch.tensor([[0.95, 0.5, 0.99, 0.3], [0.9, 0.95, 0.99, 0.2]])
    scores.add(pseudo_labels, confidence, labels)
    # Confident: 0 as 0, 0 as 1, 1 as 1 (0.9 counts), 1 as 0, and one unlabelled pixel.
    nan = float("nan")
    for found, expected in (
        (scores.coverage(), [2 / 4, 2 / 3, nan]),
        (scores.accuracy(), [1 / 2, 1 / 2, nan]),
        (scores.accuracy_of_all(), [2 / 3, 2 / 4, nan]),
    ):
        torch.testing.assert_close(found, torch.tensor(expected).double(), equal_nan=True)
    assert scores.quality == 5 / 8
    scores.add(pseudo_labels, torch.zeros(2, 4), labels)
    assert scores.quality == 5 / 16, "the mean of the images"
