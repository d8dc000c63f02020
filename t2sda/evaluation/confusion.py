"""Confusion matrix and the scores that follow from it: IoU, mean IoU, accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.errors import UserError

_IDS = IGNORE_INDEX + 1


def confusion_matrix(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int = IGNORE_INDEX
) -> np.ndarray:
    """Count every (true class, predicted class) pair over the labelled pixels.

    Args:
        prediction: integers in [0, num_classes), any shape; fastest as uint8.
        label: integers of the same shape, in [0, num_classes) or ignore_index; fastest as uint8.
        num_classes: C.
        ignore_index: label of pixels that do not count; their prediction is not looked at.

    Returns:
        (C, C) int64; rows are the truth, columns the prediction.

    Raises:
        UserError: if the shapes differ, or a label is neither a class nor ignore_index.
    """
    if prediction.shape != label.shape:
        raise UserError(
            f"prediction is {prediction.shape}, label is {label.shape}: "
            f"resize the logits to the label before the argmax"
        )
    label, prediction = _as_bytes(label, "labels hold"), _as_bytes(prediction, "it predicts")
    pairs = _count_pairs(label, prediction, max(num_classes, int(prediction.max(initial=0)) + 1))
    pairs[ignore_index] = 0
    _check_labels(pairs, num_classes, ignore_index)
    assert not pairs[:, num_classes:].any(), "a predicted class is out of range"
    return pairs[:num_classes, :num_classes]


def iou_per_class(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of every class.

    Args:
        counts: (C, C) confusion matrix, rows are the truth.

    Returns:
        (C,) float64; NaN for a class that is neither in the truth nor in the prediction.
    """
    intersection = counts.diagonal()
    return shares(intersection, counts.sum(axis=0) + counts.sum(axis=1) - intersection)


def shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole` in float64, NaN where the whole is 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(part / whole, dtype=np.float64)


def mean_of_present(iou: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the IoUs that exist, NaN where there are none."""
    present = ~np.isnan(iou)
    return shares(np.where(present, iou, 0.0).sum(axis=axis), present.sum(axis=axis))


class ConfusionMatrix:
    """Pixel counts added up over a data set, and the scores of the total.

    Args:
        num_classes: C.
        ignore_index: label of pixels that do not count.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)
        """(C, C) int64, rows are the truth; summed over ranks by whoever has ranks."""

    def update(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Count one image or batch and return its counts; see `confusion_matrix`."""
        counts = confusion_matrix(prediction, label, self.num_classes, self.ignore_index)
        self.counts += counts
        return counts

    def merge(self, groups: Sequence[Sequence[int]]) -> ConfusionMatrix:
        """The confusion matrix of coarser classes: group g of the result is `groups[g]` of ours.

        Pixel counts are summed, so mistaking one member of a group for another is no error.

        Raises:
            UserError: unless every class is in exactly one group.
        """
        members = sorted(index for group in groups for index in group)
        if members != list(range(self.num_classes)):
            raise UserError(
                f"groups must hold every class id in 0..{self.num_classes - 1} exactly once, "
                f"found {members}; put a class that matters to nobody in a group of its own"
            )
        group_of = np.zeros((self.num_classes, len(groups)), dtype=np.int64)
        for index, group in enumerate(groups):
            group_of[list(group), index] = 1
        merged = ConfusionMatrix(len(groups), self.ignore_index)
        merged.counts = group_of.T @ self.counts @ group_of
        return merged

    def iou(self) -> np.ndarray:
        """(C,) float64; NaN for a class absent from both truth and prediction."""
        return iou_per_class(self.counts)

    def class_accuracy(self) -> np.ndarray:
        """(C,) float64, the share of every class's pixels that are right; NaN without pixels."""
        return shares(self.counts.diagonal(), self.counts.sum(axis=1))

    def mean_iou(self, classes: Sequence[int] | None = None) -> float:
        """Mean of the IoUs that exist: classes absent from truth and prediction are left out.

        One mean over the classes of one confusion total, never a mean over images: what DAFormer,
        HRDA and MIC report (mmsegmentation's `nanmean`).

        Args:
            classes: ids to average over, default all. mIoU16 and mIoU13 are such subsets: their
                IoUs come from the full matrix, a pixel mistaken for a class outside the subset
                still counts against its true class.
        """
        iou = self.iou() if classes is None else self.iou()[list(classes)]
        return float(mean_of_present(iou))

    def accuracy(self) -> float:
        """Share of the labelled pixels that are right; NaN if there are none."""
        return float(shares(self.counts.trace(), self.counts.sum()))


def _count_pairs(label: np.ndarray, prediction: np.ndarray, num_predicted: int) -> np.ndarray:
    """(256, num_predicted) int64 counts of (label, prediction), both uint8 and of one shape.

    Runs of equal pairs are counted by their lengths: a street's 2 million pixels are some ten
    thousand runs.
    """
    label, prediction = label.ravel(), prediction.ravel()
    begins = np.ones(label.size, dtype=bool)
    np.not_equal(label[1:], label[:-1], out=begins[1:])
    begins[1:] |= prediction[1:] != prediction[:-1]
    first = np.flatnonzero(begins)
    lengths = np.diff(first, append=label.size)
    pairs = label[first].astype(np.intp) * num_predicted + prediction[first]
    # Sums of whole numbers are exact in float64 up to 2**53.
    counts = np.bincount(pairs, weights=lengths, minlength=_IDS * num_predicted)
    return counts.astype(np.int64).reshape(_IDS, num_predicted)


def _as_bytes(ids: np.ndarray, who: str) -> np.ndarray:
    """Ids as uint8; raises UserError for one that a byte does not hold."""
    if ids.dtype == np.uint8:
        return ids
    narrow = ids.astype(np.uint8)
    if (narrow != ids).any():
        raise UserError(f"{who} the ids {np.unique(ids[narrow != ids]).tolist()}: no train ids")
    return narrow


def _check_labels(pairs: np.ndarray, num_classes: int, ignore_index: int) -> None:
    outside = pairs[num_classes:].any(axis=1)
    if outside.any():
        ids = (np.flatnonzero(outside) + num_classes).tolist()
        raise UserError(
            f"labels hold the ids {ids}, which are neither in 0..{num_classes - 1} nor the ignored "
            f"{ignore_index}: map raw label ids to train ids (the data set's taxonomy does) first"
        )
