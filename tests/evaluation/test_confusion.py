"""Confusion counts against a slow loop, scores against numbers worked out by hand."""

import math

import numpy as np
import pytest

from t2sda.evaluation.confusion import ConfusionMatrix, confusion_matrix, iou_per_class
from t2sda.structures import IGNORE_INDEX


def matrix_of(rows: list[list[int]]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(rows))
    matrix.counts = np.array(rows)
    return matrix


def slow_confusion(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for predicted, true in zip(prediction.ravel(), label.ravel(), strict=True):
        if true != IGNORE_INDEX:
            counts[true, predicted] += 1
    return counts


def slow_iou(counts: np.ndarray) -> list[float]:
    ious = []
    for index in range(len(counts)):
        union = counts[index].sum() + counts[:, index].sum() - counts[index, index]
        ious.append(counts[index, index] / union if union else math.nan)
    return ious


@pytest.mark.parametrize("prediction_type", [np.uint8, np.int32, np.int64])
def test_counts_and_ious_equal_a_slow_loop(prediction_type: type[np.generic]) -> None:
    generator = np.random.default_rng(0)
    prediction = generator.integers(0, 5, (2, 13, 17))
    label = generator.choice([0, 1, 2, 4, IGNORE_INDEX], (2, 13, 17))  # class 3 is never true
    counts = confusion_matrix(prediction.astype(prediction_type), label, num_classes=5)
    expected = slow_confusion(prediction, label, 5)
    assert counts.dtype == np.int64
    assert counts.tolist() == expected.tolist()
    np.testing.assert_allclose(iou_per_class(counts), slow_iou(expected), rtol=1e-15)


def test_rows_are_the_truth() -> None:
    counts = confusion_matrix(np.array([1, 1, 0]), np.array([0, 0, 0]), num_classes=2)
    assert counts.tolist() == [[1, 2], [0, 0]]


def test_scores_by_hand() -> None:
    matrix = matrix_of([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    # class 0: 3 / (4 + 5 - 3); class 1: 4 / (6 + 5 - 4); class 2 is nowhere
    np.testing.assert_allclose(matrix.iou(), [3 / 6, 4 / 7, math.nan], rtol=1e-15)
    np.testing.assert_allclose(matrix.class_accuracy(), [3 / 4, 4 / 6, math.nan], rtol=1e-15)
    assert matrix.mean_iou() == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert matrix.accuracy() == pytest.approx(7 / 10)


def test_predicted_but_never_true_class_scores_zero() -> None:
    assert matrix_of([[3, 1], [0, 0]]).iou().tolist() == [0.75, 0.0]


def test_subset_keeps_the_ious_of_the_full_matrix() -> None:
    matrix = matrix_of([[3, 0, 1], [0, 2, 2], [0, 0, 9]])
    # (3/4, 2/4, 9/12): a pixel of class 0 taken for the excluded class 2 still counts against 0
    assert matrix.mean_iou(classes=(0, 1)) == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_merging_equals_merging_the_label_maps() -> None:
    groups = ((0,), (2, 3), (1, 4))
    group_of = np.array([0, 2, 1, 1, 2])
    prediction, label = np.random.default_rng(0).integers(0, 5, (2, 20, 20))
    matrix = ConfusionMatrix(5)
    matrix.update(prediction, label)
    expected = confusion_matrix(group_of[prediction], group_of[label], num_classes=3)
    assert matrix.merge(groups).counts.tolist() == expected.tolist()


@pytest.mark.parametrize("groups", [((0, 1),), ((0, 1), (1, 2)), ((0,), (1, 2, 3))])
def test_groups_that_are_no_partition_are_refused(groups: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"every class id in 0\.\.2 exactly once"):
        ConfusionMatrix(3).merge(groups)


def test_updates_add_up_and_ignored_pixels_do_not_count() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 1]]), np.array([[0, IGNORE_INDEX]]))
    matrix.update(np.array([[0, 1]]), np.array([[1, 1]]))
    assert matrix.counts.tolist() == [[1, 0], [1, 1]]


def test_prediction_on_ignored_pixels_is_not_looked_at() -> None:
    counts = confusion_matrix(np.array([77, 1]), np.array([IGNORE_INDEX, 1]), num_classes=2)
    assert counts.tolist() == [[0, 0], [0, 1]]


def test_nothing_labelled_gives_nan() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0]), np.array([IGNORE_INDEX]))
    assert math.isnan(matrix.mean_iou())
    assert math.isnan(matrix.accuracy())


def test_counts_beyond_float32_stay_exact() -> None:
    # 500 images of 2048x1024 are 1e9 pixels; float32 stops counting at 2**24
    matrix = matrix_of([[2**30 + 1, 0], [0, 1]])
    merged = matrix.merge(((0, 1),))
    assert merged.counts.tolist() == [[2**30 + 2]]


def test_label_out_of_range_is_named() -> None:
    prediction = np.zeros(3, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"ids \[33, 77\].*0\.\.18.*255"):
        confusion_matrix(prediction, np.array([33, 77, 0]), 19)
    with pytest.raises(ValueError, match=r"labels hold the ids \[-1, 256\]: no train ids"):
        confusion_matrix(prediction, np.array([256, -1, 0]), 19)


def test_prediction_out_of_range_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="predicted class"):
        confusion_matrix(np.array([19]), np.array([0]), num_classes=19)


def test_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="resize the logits"):
        confusion_matrix(np.zeros((2, 2)), np.zeros((4, 4)), num_classes=2)
