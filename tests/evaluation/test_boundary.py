"""Boundary IoU beside a slow loop over pixels, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t2sda.evaluation.boundary import boundary_counts, boundary_distance, boundary_scores
from t2sda.structures import IGNORE_INDEX


def slow_region(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask within `distance`, by the larger axis, of a pixel outside or the border."""
    height, width = mask.shape
    region = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        rows = range(y - distance, y + distance + 1)
        columns = range(x - distance, x + distance + 1)
        region[y, x] = any(
            not (0 <= i < height and 0 <= j < width) or not mask[i, j]
            for i in rows
            for j in columns
        )
    return region


@pytest.mark.parametrize("distance", [1, 3])
def test_counts_equal_those_of_a_slow_loop(distance: int) -> None:
    random = np.random.default_rng(distance)
    label = np.kron(random.choice([0, 1, 3, IGNORE_INDEX], (4, 5)), np.ones((6, 6), dtype=int))
    prediction = np.kron(random.choice([0, 1, 2], (6, 10)), np.ones((4, 3), dtype=int))
    found = boundary_counts(prediction.astype(np.uint8), label.astype(np.uint8), 5, distance)
    counted = np.where(label == IGNORE_INDEX, IGNORE_INDEX, prediction)
    for index in range(5):
        true, predicted = (slow_region(ids == index, distance) for ids in (label, counted))
        expected = [(true & predicted).sum(), (true | predicted).sum()]
        assert found[index].tolist() == expected, index


def test_a_square_that_is_one_pixel_off_by_hand() -> None:
    label = np.zeros((7, 9), dtype=np.uint8)
    prediction = label.copy()
    label[2:5, 2:5] = 1  # its boundary at distance 1 is its 8 outer pixels
    prediction[2:5, 3:6] = 1
    intersection, union = boundary_counts(prediction, label, 3, 1)[1]
    assert (intersection, union) == (4, 12)  # the rows above and below share 2 pixels each
    scores = boundary_scores(np.array([[1, 2], [4, 12], [0, 0]]), ("x", "y", "z"))
    assert scores.iou["y"] == pytest.approx(1 / 3)
    assert math.isnan(scores.iou["z"])
    assert scores.mean_iou == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_the_distance_is_two_hundredths_of_the_diagonal() -> None:
    assert boundary_distance((1024, 2048)) == 46  # 2289.7 pixels
    assert boundary_distance((4, 4)) == 1
