"""Scores of a dataset beside its predictions, counted image by image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from t2sda.config import ConfigError, load_config
from t2sda.data.datasets import FileDataset, Sample, SegmentationDataset
from t2sda.data.taxonomies import CITYSCAPES_19, ClassGroup
from t2sda.errors import UserError
from t2sda.evaluation.boundary import boundary_counts
from t2sda.evaluation.confusion import ConfusionMatrix
from t2sda.evaluation.evaluator import evaluate
from t2sda.runtime.letterbox import Frame
from t2sda.structures import IGNORE_INDEX
from tests.evaluation.predictors import FOUR, Formula


class Noise(SegmentationDataset):
    """Five images of two sizes; trees (3) are never there."""

    name = "noise"
    taxonomy = FOUR
    class_groups = (ClassGroup("ground", (1, 2)), ClassGroup("rest", (0, 3)))

    def __len__(self) -> int:
        return 5

    @property
    def labelled(self) -> bool:
        return True

    def load(self, index: int, with_label: bool = True) -> Sample:
        random = np.random.default_rng(index)
        size = (20 + 4 * (index % 2), 30)
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        label = random.choice([0, 1, 2, IGNORE_INDEX], size).astype(np.uint8)
        return Sample(self.name_of(index), image, label if with_label else None)

    def label_identity(self) -> Iterator[str]:
        yield "noise"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["EVALUATION.WINDOW", "[64]"], r"EVALUATION.WINDOW: \(64,\) is not \(height, width\)"),
        (["EVALUATION.STEP", "[64, 64]"], r"STEP(.|\n)*only used when EVALUATION.WINDOW is set"),
        (
            ["EVALUATION.WINDOW", "[64, 64]", "EVALUATION.STEP", "[64, 65]"],
            r"EVALUATION.STEP: \[64, 65\] is larger than EVALUATION.WINDOW \[64, 64\]: pixels",
        ),
        (
            ["MODEL.NAME", "HRDA", "EVALUATION.WINDOW", "[1024, 1024]"],
            r"WINDOW: \[1024, 1024\], but HRDA goes over images in windows of its own; leave it",
        ),
    ],
)
def test_windows_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_scores_are_those_of_the_predictions() -> None:
    kept: dict[str, np.ndarray] = {}
    scores = evaluate(Formula(), Noise(), keep=kept.__setitem__)
    dataset, total = Noise(), ConfusionMatrix(4)
    assert (
        list(kept)
        == [image.name for image in scores.images]
        == [f"noise[{index}]" for index in range(5)]
    )
    for index, (image, labels) in enumerate(zip(scores.images, kept.values(), strict=True)):
        sample = dataset.load(index)
        assert (labels == Formula().predict(sample.image)).all()
        counts = total.update(labels, dataset.load_label(index))
        assert image.true == tuple(counts.sum(axis=1))
        assert image.predicted == tuple(counts.sum(axis=0))
        assert image.right == tuple(counts.diagonal())
        assert image.group_right == (counts[1:3, 1:3].sum(), counts[::3, ::3].sum())
    assert np.array(scores.confusion).tolist() == total.counts.tolist()
    assert list(scores.iou.values()) == total.iou().tolist()
    assert scores.mean_iou == total.mean_iou()
    assert scores.subset_iou == {"far": total.mean_iou((0, 3))}
    assert scores.groups is not None
    assert scores.groups.mean_iou == total.merge([(1, 2), (0, 3)]).mean_iou()
    assert scores.reported is scores.groups
    assert scores.head_tail is None
    assert scores.boundary_iou is scores.calibration is None


def test_boundaries_and_confidences_are_counted_if_asked_for() -> None:
    scores = evaluate(Formula(), Noise(), boundary=True, calibration=True)
    plain = evaluate(Formula(), Noise())
    assert scores.confusion == plain.confusion
    assert scores.calibration is not None
    assert scores.boundary_iou is not None
    labelled = sum(sum(row) for row in scores.confusion)
    assert sum(count for count, _, _ in scores.calibration.bins) == labelled
    right = sum(count * right for count, _, right in scores.calibration.bins if count)
    assert right / labelled == pytest.approx(scores.accuracy)


def test_boundaries_are_measured_in_every_image_by_its_own_diagonal() -> None:
    class Mixed(Noise):
        def load(self, index: int, with_label: bool = True) -> Sample:
            sample = super().load(index, with_label)
            assert sample.label is not None
            side = 1 + 8 * (index % 2)
            larger = np.ones((side, side), dtype=np.uint8)
            image = np.kron(sample.image, larger[..., None])
            return Sample(sample.name, image, np.kron(sample.label, larger))

    dataset = Mixed()
    scores = evaluate(Formula(), dataset, boundary=True)
    total = np.zeros((4, 2), dtype=np.int64)
    distances = set()
    for index in range(len(dataset)):
        sample = dataset.load(index)
        assert sample.label is not None
        distance = max(round(0.02 * math.dist((0, 0), sample.label.shape)), 1)
        distances.add(distance)
        total += boundary_counts(Formula().predict(sample.image), sample.label, 4, distance)
    assert len(distances) == 2
    assert scores.boundary_iou is not None
    assert list(scores.boundary_iou.iou.values()) == pytest.approx(total[:, 0] / total[:, 1])


def test_a_class_that_is_nowhere_is_nan_and_left_out() -> None:
    class Skies(Formula):
        def formula(self, image: np.ndarray) -> np.ndarray:
            maps = super().formula(image)
            maps[3] = -1e3
            return maps

    scores = evaluate(Skies(), Noise())
    assert np.isnan(scores.iou["tree"])
    assert np.isnan(scores.class_accuracy["tree"])
    assert scores.mean_iou == pytest.approx(
        sum(scores.iou[name] for name in ("sky", "road", "car")) / 3, rel=1e-14
    )


def test_predictions_of_another_size_are_named_with_the_image() -> None:
    class Half(Formula):
        def _labels(self, frames: list[Frame]) -> list[np.ndarray]:
            return [own[::2] for own in super()._labels(frames)]

    with pytest.raises(UserError, match=r"noise\[0\]: prediction is \(10, 30\), label is \(20, 30"):
        evaluate(Half(), Noise())


def test_sets_without_labels_or_of_other_classes_are_refused() -> None:
    unlabelled = FileDataset("bare", [(Path("a.png"), None)], FOUR)
    with pytest.raises(UserError, match="'bare' has no labels, so nothing .*infer. writes"):
        evaluate(Formula(), unlabelled)
    others = FileDataset("city", [(Path("a.png"), Path("b.png"))], CITYSCAPES_19)
    with pytest.raises(UserError, match="'city' has the classes of 'cityscapes_19', the model"):
        evaluate(Formula(), others)


def test_files_are_named_below_the_root_of_their_set() -> None:
    pairs = [(Path("/data/set/aachen/a.png"), Path("/data/set/aachen/b.png"))]
    assert FileDataset("set", pairs, FOUR, root=Path("/data/set")).relative_name(0) == (
        "aachen/a.png"
    )
    assert FileDataset("set", pairs, FOUR).relative_name(0) == "/data/set/aachen/a.png"
