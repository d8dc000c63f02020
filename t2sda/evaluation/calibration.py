"""Expected calibration error: how far confidence is from being right."""

from __future__ import annotations

import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.evaluation.confusion import shares
from t2sda.evaluation.entries import Calibration

NUM_BINS = 15


def confidence_bins(
    confidence: np.ndarray, prediction: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Labelled pixels by confidence, in bins of equal width.

    Args:
        confidence: (H, W) float32 in [0, 1], the probability of the predicted class.
        prediction: (H, W) train ids.
        label: (H, W) train ids or IGNORE_INDEX.

    Returns:
        (NUM_BINS, 3) float64: pixels, sum of confidences, pixels that are right. A bin holds its
        lower edge; 1 is in the last.
    """
    labelled = label != IGNORE_INDEX
    sure = confidence[labelled]
    edges = np.linspace(0, 1, NUM_BINS + 1, dtype=np.float32)[1:-1]
    index = np.digitize(sure, edges)
    right = prediction[labelled] == label[labelled]
    columns = (None, sure, right)
    return np.stack([np.bincount(index, own, minlength=NUM_BINS) for own in columns], axis=1)


def calibration_of(bins: np.ndarray) -> Calibration:
    """The error of summed bins: Σ_b |accuracy_b - mean confidence_b| · share of pixels in b.

    Guo et al., On Calibration of Modern Neural Networks, Eq. (3); NaN without pixels.

    Args:
        bins: (NUM_BINS, 3), sums of what `confidence_bins` gives.
    """
    pixels, confidence, right = bins.T
    ece = float(shares(np.abs(right - confidence).sum(), pixels.sum()))
    means = zip(
        pixels.astype(np.int64).tolist(),
        shares(confidence, pixels).tolist(),
        shares(right, pixels).tolist(),
        strict=True,
    )
    return Calibration(ece, tuple(means))
