"""Counts of scored images, over all ranks, and the scores that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from t2sda.data.datasets import Sample, SegmentationDataset
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.distributed import gather_shares, sum_over_ranks
from t2sda.errors import UserError
from t2sda.evaluation.boundary import boundary_counts, boundary_distance, boundary_scores
from t2sda.evaluation.calibration import NUM_BINS, calibration_of, confidence_bins
from t2sda.evaluation.confusion import ConfusionMatrix, mean_of_present
from t2sda.evaluation.entries import (
    Calibration,
    ClassScores,
    HeadTail,
    ImageCounts,
    Protocol,
    Scores,
)
from t2sda.evaluation.views import Labelled

TAIL_CLASSES = (
    *("wall", "traffic light", "traffic sign", "rider"),
    *("truck", "bus", "train", "motorcycle", "bicycle"),
)
"""Of the 19 classes of Cityscapes, those with the fewest training pixels (Table S5)."""


class Tally:
    """What one rank has counted; `scores` joins the ranks, with the same result for any number.

    Of an image stay three numbers a class, one a class group, and three a bin of confidences:
    sums of floats are taken in the order of the dataset, whoever counted them.

    Args:
        dataset: that is scored.
        taxonomy: of the model.
        boundary: whether boundaries are counted as well.
        calibration: whether confidences are.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        taxonomy: Taxonomy,
        *,
        boundary: bool = False,
        calibration: bool = False,
    ) -> None:
        self.dataset = dataset
        self.taxonomy = taxonomy
        self.confusion = ConfusionMatrix(taxonomy.num_classes)
        self.boundary = boundary
        self.calibration = calibration
        self._groups = [group.train_ids for group in dataset.class_groups]
        self._boundary = np.zeros((taxonomy.num_classes, 2), dtype=np.int64)
        self._counts: list[np.ndarray] = []
        self._bins: list[np.ndarray] = []

    def add(self, sample: Sample, found: Labelled) -> None:
        """Count one image.

        Raises:
            UserError: if what is predicted has not the label's size.
        """
        label, labels = sample.label, found.labels
        assert label is not None
        try:
            counts = self.confusion.update(labels, label)
        except UserError as error:
            raise UserError(f"{sample.name}: {error}") from None
        self._counts.append(self._row(counts))
        if self.boundary:
            distance = boundary_distance((label.shape[0], label.shape[1]))
            self._boundary += boundary_counts(labels, label, len(counts), distance)
        if self.calibration:
            assert found.confidence is not None
            self._bins.append(confidence_bins(found.confidence, labels, label))

    def scores(self, protocol: Protocol) -> Scores:
        """Of the images of all ranks; every rank asks for them."""
        names = self.taxonomy.class_names
        total = ConfusionMatrix(len(names))
        total.counts = sum_over_ranks(torch.from_numpy(self.confusion.counts)).numpy()
        subsets = self.taxonomy.subsets.items()
        return Scores(
            dataset=self.dataset.name,
            num_images=len(self.dataset),
            protocol=protocol,
            classes=names,
            confusion=tuple(map(tuple, total.counts.tolist())),
            iou=_named(names, total.iou()),
            class_accuracy=_named(names, total.class_accuracy()),
            accuracy=total.accuracy(),
            mean_iou=total.mean_iou(),
            subset_iou={name: total.mean_iou(train_ids) for name, train_ids in subsets},
            groups=self._group_scores(total),
            group_classes={group.name: group.train_ids for group in self.dataset.class_groups},
            head_tail=head_tail(names, total.iou()),
            boundary_iou=self._boundary_scores(),
            calibration=self._calibration(),
            images=self._images(),
        )

    def _row(self, counts: np.ndarray) -> np.ndarray:
        """(3 C + G,) int64: true, predicted, right by class, right by group."""
        by_group = [counts[np.ix_(group, group)].sum() for group in self._groups]
        diagonal = counts.diagonal()
        return np.concatenate(
            [counts.sum(axis=1), counts.sum(axis=0), diagonal, np.array(by_group, dtype=np.int64)]
        )

    def _images(self) -> tuple[ImageCounts, ...]:
        num_classes = self.taxonomy.num_classes
        rows = self._gathered(self._counts, (3 * num_classes + len(self._groups),), np.int64)
        ends = [num_classes, 2 * num_classes, 3 * num_classes]
        return tuple(
            ImageCounts(
                self.dataset.relative_name(index),
                *(tuple(part.tolist()) for part in np.split(row, ends)),
            )
            for index, row in enumerate(rows)
        )

    def _group_scores(self, total: ConfusionMatrix) -> ClassScores | None:
        if not self._groups:
            return None
        grouped = total.merge(self._groups)
        names = [group.name for group in self.dataset.class_groups]
        return ClassScores(_named(names, grouped.iou()), grouped.mean_iou())

    def _boundary_scores(self) -> ClassScores | None:
        if not self.boundary:
            return None
        counts = sum_over_ranks(torch.from_numpy(self._boundary)).numpy()
        return boundary_scores(counts, self.taxonomy.class_names)

    def _calibration(self) -> Calibration | None:
        if not self.calibration:
            return None
        return calibration_of(self._gathered(self._bins, (NUM_BINS, 3), np.float64).sum(axis=0))

    def _gathered(
        self, rows: list[np.ndarray], shape: tuple[int, ...], dtype: type[np.generic]
    ) -> np.ndarray:
        """Rows of all images, in the order of the dataset."""
        own = np.stack(rows) if rows else np.zeros((0, *shape), dtype=dtype)
        return gather_shares(torch.from_numpy(own), len(self.dataset)).numpy()


def head_tail(class_names: Sequence[str], iou: np.ndarray) -> HeadTail | None:
    """Mean IoU of head and tail classes as in Table S5; None for other classes than its 19."""
    if tuple(class_names) != CITYSCAPES_19.class_names:
        return None
    tail = np.isin(class_names, TAIL_CLASSES)
    return HeadTail(float(mean_of_present(iou[~tail])), float(mean_of_present(iou[tail])))


def _named(names: Iterable[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
