"""Confusion matrix and the scores that follow from it: IoU, mean IoU, accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from t2sda.errors import UserError
from t2sda.structures import IGNORE_INDEX


def confusion_matrix(
    prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Count every (true class, predicted class) pair over the labelled pixels.

    Args:
        prediction: integers in [0, num_classes), any shape.
        label: integers of the same shape, in [0, num_classes) or ignore_index.
        num_classes: C.
        ignore_index: label of pixels that do not count; their prediction is not looked at.

    Returns:
        (C, C) int64 on the device of label; rows are the truth, columns the prediction.

    Raises:
        UserError: if the shapes differ, or a label is neither a class nor ignore_index.
    """
    if prediction.shape != label.shape:
        raise UserError(
            f"prediction is {tuple(prediction.shape)}, label is {tuple(label.shape)}: "
            f"resize the logits to the label before the argmax"
        )
    labelled = label != ignore_index
    true, predicted = label[labelled].long(), prediction[labelled].long()
    _check_labels(true, num_classes, ignore_index)
    assert not _outside(predicted, num_classes).any(), "a predicted class is out of range"
    counts = torch.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


def iou_per_class(counts: Tensor) -> Tensor:
    """Intersection over union of every class.

    Args:
        counts: (C, C) confusion matrix, rows are the truth.

    Returns:
        (C,) float64; NaN for a class that is neither in the truth nor in the prediction.
    """
    counts = counts.double()
    intersection = counts.diagonal()
    return intersection / (counts.sum(dim=0) + counts.sum(dim=1) - intersection)


class ConfusionMatrix:
    """Pixel counts added up over a data set, and the scores of the total.

    Args:
        num_classes: C.
        ignore_index: label of pixels that do not count.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        """(C, C) int64 on the CPU, rows are the truth; summed over ranks by whoever has ranks."""

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Count one image or batch; see `confusion_matrix` for shapes and errors."""
        counts = confusion_matrix(prediction, label, self.num_classes, self.ignore_index)
        self.counts += counts.cpu()

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
        group_of = torch.zeros(self.num_classes, len(groups), dtype=torch.int64)
        for index, group in enumerate(groups):
            group_of[list(group), index] = 1
        merged = ConfusionMatrix(len(groups), self.ignore_index)
        merged.counts = group_of.T @ self.counts @ group_of
        return merged

    def iou(self) -> Tensor:
        """(C,) float64; NaN for a class absent from both truth and prediction."""
        return iou_per_class(self.counts)

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
        return float(iou.nanmean())

    def accuracy(self) -> float:
        """Share of the labelled pixels that are right; NaN if there are none."""
        counts = self.counts.double()
        return float(counts.diagonal().sum() / counts.sum())


def _outside(ids: Tensor, num_classes: int) -> Tensor:
    return (ids < 0) | (ids >= num_classes)


def _check_labels(true: Tensor, num_classes: int, ignore_index: int) -> None:
    outside = _outside(true, num_classes)
    if outside.any():
        ids = true[outside].unique().tolist()
        raise UserError(
            f"labels hold the ids {ids}, which are neither in 0..{num_classes - 1} nor the ignored "
            f"{ignore_index}: map raw label ids to train ids (the data set's taxonomy does) first"
        )
