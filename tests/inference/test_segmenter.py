"""Whole images and windows, labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from t2sda.constants import IGNORE_INDEX
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.inference.segmenter import Segmenter

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


class NearTies:
    """Red is class 0, green class 1, blue class 2; what float16 cannot tell apart is told apart."""

    taxonomy = CITYSCAPES_19

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def predict(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        found = self.probabilities(images, batch_size)
        return [own.argmax(axis=0).astype(np.uint8) for own in found]

    def probabilities(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        assert len(images) <= batch_size
        self.seen.append((len(images), *images[0].shape[:2]))
        batch = np.float32(1 / 3) + np.stack(images).astype(np.float32) * np.float32(1e-7)
        return list(np.moveaxis(batch, 3, 1))


@pytest.mark.parametrize("window", [None, (16, 20)])
def test_labels_are_the_same_with_probabilities(window: tuple[int, int] | None) -> None:
    stride = (9, 11)
    (labels,) = Segmenter(NearTies(), 1, window, stride)([IMAGE])
    (both,) = Segmenter(NearTies(), 1, window, stride, with_probabilities=True)([IMAGE])
    assert labels.probabilities is None
    assert both.probabilities is not None
    assert both.probabilities.shape == (3, 37, 53)
    assert both.probabilities.dtype == np.float16
    assert np.array_equal(labels.labels, IMAGE.argmax(axis=2))
    assert np.array_equal(both.labels, labels.labels)
    assert not np.array_equal(both.probabilities.argmax(axis=0), labels.labels)  # float16 ties


@pytest.mark.parametrize("with_probabilities", [False, True])
def test_the_network_sees_as_many_windows_at_once_as_it_should(with_probabilities: bool) -> None:
    for batch_size, batches in ((1, [1] * 9), (4, [4, 4, 1])):
        model = NearTies()
        Segmenter(model, batch_size, (16, 20), (16, 20), with_probabilities)([IMAGE])
        assert model.seen == [(size, 16, 20) for size in batches]


def test_probabilities_of_several_images_at_once() -> None:
    model = NearTies()
    images = [IMAGE, IMAGE[::-1]]
    together = Segmenter(model, 2, with_probabilities=True)(images)
    assert model.seen == [(2, 37, 53)]
    for image, own in zip(images, together, strict=True):
        (alone,) = Segmenter(NearTies(), with_probabilities=True)([image])
        assert np.array_equal(own.probabilities, alone.probabilities)
        assert np.array_equal(own.labels, alone.labels)


class Sure:
    """Logits of three classes by the red value alone: the more red, the surer of class 1."""

    taxonomy = CITYSCAPES_19

    def logits(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        zeros = [np.zeros((3, *image.shape[:2]), dtype=np.float32) for image in images]
        for own, image in zip(zeros, images, strict=True):
            own[1] = image[..., 0] / 64
        return zeros

    def probabilities(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        exponents = [np.exp(own) for own in self.logits(images, batch_size)]
        return [own / own.sum(axis=0) for own in exponents]

    def predict(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        return [own.argmax(axis=0).astype(np.uint8) for own in self.logits(images)]


@pytest.mark.parametrize("window", [None, (16, 20)])
@pytest.mark.parametrize("with_probabilities", [False, True])
@pytest.mark.parametrize("averages", [False, True])
def test_confidence_and_what_is_not_sure_enough(
    window: tuple[int, int] | None, with_probabilities: bool, averages: bool
) -> None:
    settings = {"with_probabilities": with_probabilities, "averages": averages}
    segmenter = Segmenter(
        Sure(), 2, window, (9, 11), with_confidence=True, min_confidence=0.8, **settings
    )
    (found,) = segmenter([IMAGE])
    # exp(red / 64) / (exp(red / 64) + 2) >= 0.8 from red = 64 ln 8 = 133.1 on
    assert np.array_equal(found.labels, np.where(IMAGE[..., 0] >= 134, 1, IGNORE_INDEX))
    sure = np.exp(IMAGE[..., 0] / 64)
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence, 255 * sure / (sure + 2), atol=0.501)  # rounded
    assert (found.probabilities is not None) == with_probabilities


def test_where_windows_overlap_logits_are_averaged() -> None:
    class FirstColumn(Sure):
        """Class 1 where the first column of the window is bright, class 2 where it is dark."""

        def logits(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
            maps = []
            for image in images:
                own = np.zeros((3, *image.shape[:2]), dtype=np.float32)
                own[1] = float(image[0, 0, 0])
                own[2] = 100.0
                maps.append(own)
            return maps

    image = np.zeros((4, 9, 3), dtype=np.uint8)
    image[:, 0], image[:, 3] = 255, 10
    # Windows begin at columns 0 and 3: 255 against 100, 10 against 100, and 132.5 for their mean.
    mean = Segmenter(FirstColumn(), window=(4, 6), stride=(4, 3), averages=True)([image])[0]
    middle = Segmenter(FirstColumn(), window=(4, 6), stride=(4, 3))([image])[0]
    assert mean.labels[0].tolist() == [1, 1, 1, 1, 1, 1, 2, 2, 2]
    assert middle.labels[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]
