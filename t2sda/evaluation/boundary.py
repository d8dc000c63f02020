"""Boundary IoU: IoU of the pixels that are near a class's boundary, in truth and prediction."""

from __future__ import annotations

import math

import cv2
import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.evaluation.confusion import mean_of_present, shares
from t2sda.evaluation.entries import ClassScores

DIAGONAL_SHARE = 0.02
"""How far from a boundary pixels count, as a share of their image's diagonal; of the paper."""


def boundary_distance(size: tuple[int, int]) -> int:
    """Pixels that count of an image (height, width)."""
    return max(round(DIAGONAL_SHARE * math.hypot(*size)), 1)


def boundary_counts(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, distance: int
) -> np.ndarray:
    """Intersection and union of every class's boundary regions, of true and of predicted pixels.

    A region is what is of the class and at most `distance` from what is not, by the larger of
    both axes; the image's border counts as a boundary, as in Cheng et al., Boundary IoU (2021).
    Pixels without label are of no class in the prediction either.

    Args:
        prediction, label: (H, W) uint8 train ids; label IGNORE_INDEX where it does not count.
        num_classes: C.
        distance: in pixels.

    Returns:
        (C, 2) int64.
    """
    prediction = np.where(label == IGNORE_INDEX, label, prediction)
    counts = np.zeros((num_classes, 2), dtype=np.int64)
    for index in np.union1d(np.unique(prediction), np.unique(label)):
        if index != IGNORE_INDEX:
            true, predicted = (_region(ids == index, distance) for ids in (label, prediction))
            counts[index] = (true & predicted).sum(), (true | predicted).sum()
    return counts


def boundary_scores(counts: np.ndarray, class_names: tuple[str, ...]) -> ClassScores:
    """Of summed counts (C, 2), as `boundary_counts` gives them."""
    iou = shares(counts[:, 0], counts[:, 1])
    named = dict(zip(class_names, iou.tolist(), strict=True))
    return ClassScores(named, float(mean_of_present(iou)))


def _region(mask: np.ndarray, distance: int) -> np.ndarray:
    """(H, W) bool: of the mask, what a square of `distance` around it leaves."""
    whole = mask.astype(np.uint8)
    side = 2 * distance + 1
    inner = cv2.erode(
        whole,
        np.ones((side, side), dtype=np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0,),
    )
    return whole > inner
