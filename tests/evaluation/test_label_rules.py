"""Rules of pseudo-labels against sorting, slow loops and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.errors import UserError
from t2sda.evaluation.label_rules import (
    BINS,
    Argmax,
    ClassBalanced,
    ConfidenceHistogram,
    Threshold,
    labels_above,
)

NUM_CLASSES = 5
"""The last is never predicted."""


def probabilities(seed: int, sharpness: float = 2.0) -> np.ndarray:
    """(C, 40, 60) float32."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(NUM_CLASSES, 40, 60))
    logits[-1] = -30
    exponents = np.exp(logits - logits.max(axis=0))
    return (exponents / exponents.sum(axis=0)).astype(np.float32)


def seen(images: list[np.ndarray]) -> ConfidenceHistogram:
    histogram = ConfidenceHistogram.empty(NUM_CLASSES)
    for probs in images:
        histogram.add(probs)
    return histogram


@pytest.mark.parametrize("portion", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("sharpness", [0.5, 2.0, 12.0])
def test_thresholds_are_those_of_sorting_to_a_bin(portion: float, sharpness: float) -> None:
    """Sharpness 12: nearly all confidences are above 0.999."""
    images = [probabilities(seed, sharpness) for seed in range(3)]
    found = ClassBalanced(portion).thresholds(seen(images))
    predicted = np.concatenate([probs.argmax(axis=0).ravel() for probs in images])
    confidence = np.concatenate([probs.max(axis=0).ravel() for probs in images])
    for index in range(NUM_CLASSES - 1):
        own = np.sort(confidence[predicted == index])[::-1]
        expected = own[min(int(portion * len(own)), len(own) - 1)]
        assert 0 <= expected - found[index] < 8e-4
        if sharpness == 12.0 and portion == 0.05:
            assert found[index] > 0.99999
    assert found[-1] == 1


@pytest.mark.parametrize("sharpness", [2.0, 12.0])
def test_cbst_labels_an_equal_share_of_every_class(sharpness: float) -> None:
    images = [probabilities(seed, sharpness) for seed in range(3)]
    thresholds = ClassBalanced(0.3).thresholds(seen(images))
    for index in range(NUM_CLASSES - 1):
        own = np.concatenate([p[index][p.argmax(axis=0) == index] for p in images])
        assert (own > thresholds[index]).mean() == pytest.approx(0.3, abs=0.02)


def test_labels_are_those_of_the_equation_pixel_by_pixel() -> None:
    probs = probabilities(0)
    thresholds = ClassBalanced(0.2).thresholds(seen([probs]))
    found = labels_above(probs, thresholds)
    others = 0
    for place in np.ndindex(*found.shape):
        own = probs[(slice(None), *place)].astype(np.float64)
        ratios = own / thresholds
        expected = int(ratios.argmax()) if ratios.max() > 1 else 255
        assert found[place] == expected
        others += expected not in (255, int(own.argmax()))
    # A class of low threshold wins over a more probable one somewhere, else this tests less.
    assert labels_above(probs, np.array([0.9, 0.2, 0.9, 0.9, 1])).tolist() != found.tolist()


def test_a_class_of_low_threshold_wins_by_hand() -> None:
    probs = np.array([0.6, 0.3, 0.1], dtype=np.float32).reshape(3, 1, 1)
    # 0.6 / 0.9 < 1, 0.3 / 0.25 > 1: the second, though the first is more probable.
    assert labels_above(probs, np.array([0.9, 0.25, 1.0])) == [[1]]
    assert labels_above(probs, np.array([0.9, 0.35, 1.0])) == [[255]]


def test_argmax_labels_all_and_a_threshold_the_sure_ones() -> None:
    probs, nothing = probabilities(1), ConfidenceHistogram.empty(NUM_CLASSES)
    labels = labels_above(probs, Argmax().thresholds(nothing))
    np.testing.assert_array_equal(labels, probs.argmax(axis=0))
    sure = labels_above(probs, Threshold(0.8).thresholds(nothing))
    expected = np.where(probs.max(axis=0) > 0.8, labels, 255)
    np.testing.assert_array_equal(sure, expected)
    assert 0 < (sure == 255).mean() < 1


def test_a_histogram_does_not_grow_and_takes_certainty() -> None:
    histogram = ConfidenceHistogram.empty(2)
    certain = np.zeros((2, 4, 4), dtype=np.float32)
    certain[1] = 1
    for _ in range(3):
        histogram.add(certain)
    assert histogram.counts.shape == (2, BINS)
    assert histogram.counts[1, -1] == histogram.counts.sum() == 48
    thresholds = histogram.thresholds(0.5)
    assert (labels_above(certain, thresholds) == 1).all()


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_that_nothing_can_be_above_is_refused(threshold: float) -> None:
    with pytest.raises(UserError, match="--threshold .* give a number from 0 to below 1"):
        Threshold(threshold)


@pytest.mark.parametrize("portion", [0.0, 1.5])
def test_a_portion_that_is_no_share_is_refused(portion: float) -> None:
    with pytest.raises(UserError, match="--portion .* above 0, at most 1"):
        ClassBalanced(portion)
