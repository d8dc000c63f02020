"""Counts, IoUs and calibration of random predictions, beside two public libraries' own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as cityscapes  # noqa: N813
from cityscapesscripts.helpers.labels import name2label

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.evaluation.calibration import calibration_of, confidence_bins
from t2sda.evaluation.confusion import ConfusionMatrix, confusion_matrix
from t2sda.evaluation.tally import head_tail
from t2sda.inference.results import CITYSCAPES_LABEL_IDS, label_ids
from t2sda.modeling.backbones.timm_import import declare_missing_torchvision_operators
from t2sda.structures import IGNORE_INDEX

declare_missing_torchvision_operators()  # torchmetrics imports torchvision, as timm does
from torchmetrics.functional.classification import (  # noqa: E402
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

NAMES = CITYSCAPES_19.class_names


def noise(seed: int, absent: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and label (48, 80) uint8, one half right; the absent classes are in neither."""
    random = np.random.default_rng(seed)
    present = [index for index in range(19) if index not in absent]
    label = random.choice([*present, IGNORE_INDEX], (48, 80)).astype(np.uint8)
    other = random.choice(present, label.shape).astype(np.uint8)
    right = (random.random(label.shape) < 0.5) & (label != IGNORE_INDEX)
    return np.where(right, label, other), label


def test_counts_and_ious_equal_those_of_cityscapesscripts(tmp_path: Path) -> None:
    args = cityscapes.args
    args.evalInstLevelScore = args.evalPixelAccuracy = False
    args.evalLabels = [0, *CITYSCAPES_LABEL_IDS.values()]
    theirs = cityscapes.generateMatrix(args)
    ours = ConfusionMatrix(19)
    for seed in range(2):
        prediction, label = noise(seed, absent=(14, 16))
        paths = [str(tmp_path / f"{seed}_{kind}.png") for kind in ("pred", "gt")]
        for path, train_ids in zip(paths, (prediction, label), strict=True):
            cv2.imwrite(path, label_ids(train_ids, CITYSCAPES_19))
        cityscapes.evaluatePair(*paths, theirs, {}, {}, args)
        ours.update(prediction, label)
    ids = [name2label[name].id for name in NAMES]
    assert ours.counts.tolist() == theirs[np.ix_(ids, ids)].tolist()
    expected = [cityscapes.getIouScoreForLabel(index, theirs, args) for index in ids]
    assert np.isnan(expected).sum() == 2
    np.testing.assert_array_equal(ours.iou(), expected)
    mean = cityscapes.getScoreAverage(dict(zip(ids, expected, strict=True)), args)
    assert ours.mean_iou() == pytest.approx(mean, rel=1e-14)


def test_counts_and_ious_equal_those_of_torchmetrics() -> None:
    prediction, label = noise(0)
    tensors = torch.from_numpy(prediction).long(), torch.from_numpy(label).long()
    theirs = multiclass_confusion_matrix(*tensors, num_classes=19, ignore_index=IGNORE_INDEX)
    assert confusion_matrix(prediction, label, 19).tolist() == theirs.tolist()
    iou = multiclass_jaccard_index(
        *tensors, num_classes=19, ignore_index=IGNORE_INDEX, average="none"
    )
    matrix = ConfusionMatrix(19)
    matrix.update(prediction, label)
    np.testing.assert_allclose(matrix.iou(), iou.numpy(), rtol=1e-6)  # theirs are float32


def test_means_of_16_and_13_classes_drop_ious_of_the_whole_matrix() -> None:
    """mIoU16 without terrain, truck, train; mIoU13 also without wall, fence, pole (A11)."""
    matrix = ConfusionMatrix(19)
    matrix.update(*noise(0))
    iou = dict(zip(NAMES, matrix.iou().tolist(), strict=True))
    dropped = {"terrain", "truck", "train"}
    for name, names in (("mIoU16", dropped), ("mIoU13", dropped | {"wall", "fence", "pole"})):
        kept = [value for key, value in iou.items() if key not in names]
        assert len(kept) == int(name.removeprefix("mIoU"))
        subset = CITYSCAPES_19.subsets[name]
        assert matrix.mean_iou(subset) == pytest.approx(sum(kept) / len(kept), rel=1e-14)


def test_head_and_tail_are_those_of_table_s5() -> None:
    iou = np.arange(19) / 20
    tail = [3, 6, 7, 12, 14, 15, 16, 17, 18]  # wall, light, sign, rider, truck, bus, train, …
    found = head_tail(NAMES, iou)
    assert found is not None
    assert found.tail == pytest.approx(sum(tail) / 9 / 20)
    assert found.head == pytest.approx((sum(range(19)) - sum(tail)) / 10 / 20)
    assert head_tail(NAMES[:18], iou[:18]) is None


def test_calibration_error_equals_that_of_torchmetrics() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(size=(19, 40, 50)).astype(np.float32) * 4
    label = random.choice([*range(19), IGNORE_INDEX], (40, 50)).astype(np.uint8)
    right = random.random(label.shape) < 0.6
    chosen = np.where(right & (label != IGNORE_INDEX), label, 0)
    np.put_along_axis(logits, chosen[None].astype(np.int64), logits.max(axis=0)[None] + 1, axis=0)
    probabilities = torch.from_numpy(logits).softmax(dim=0)
    confidence, prediction = (own.numpy() for own in probabilities.max(dim=0))
    halves = [
        confidence_bins(confidence[rows], prediction[rows], label[rows])
        for rows in (slice(0, 13), slice(13, None))
    ]
    found = calibration_of(np.add(*halves))
    theirs = multiclass_calibration_error(
        probabilities[None],
        torch.from_numpy(label).long()[None],
        num_classes=19,
        n_bins=15,
        norm="l1",
        ignore_index=IGNORE_INDEX,
    )
    assert found.ece == pytest.approx(float(theirs), abs=1e-6)  # theirs are float32 sums
    assert sum(count for count, _, _ in found.bins) == (label != IGNORE_INDEX).sum()


def test_calibration_by_hand() -> None:
    confidence = np.array([[0.9, 0.9, 0.5, 1.0, 0.2]], dtype=np.float32)
    prediction = np.array([[0, 1, 1, 0, 1]], dtype=np.uint8)
    label = np.array([[0, 0, 1, 0, IGNORE_INDEX]], dtype=np.uint8)
    found = calibration_of(confidence_bins(confidence, prediction, label))
    # .9 is in bin 13, one of two is right; .5 in bin 7 and 1 in bin 14 are right
    assert found.ece == pytest.approx((2 * 0.4 + 0.5 + 0.0) / 4, abs=1e-7)
    assert [count for count, _, _ in found.bins] == [0] * 7 + [1] + [0] * 5 + [2, 1]
    assert np.isnan(found.bins[0][1])
    assert np.isnan(calibration_of(np.zeros((15, 3))).ece)
