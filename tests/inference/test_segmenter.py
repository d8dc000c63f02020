"""Whole pictures and windows, labels and probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.inference.segmenter import Segmenter

PICTURE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


class NearTies:
    """Red is class 0, green class 1, blue class 2; what float16 cannot tell apart is told apart."""

    taxonomy = CITYSCAPES_19

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def predict(self, images: Sequence[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        return [self.probabilities(image).argmax(axis=0).astype(np.uint8) for image in images]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        self.seen.append(image.shape[:2])
        return np.moveaxis(np.float32(1 / 3) + image.astype(np.float32) * np.float32(1e-7), 2, 0)


@pytest.mark.parametrize("window", [None, (16, 20)])
def test_labels_are_the_same_with_probabilities(window: tuple[int, int] | None) -> None:
    stride = (9, 11)
    (labels,) = Segmenter(NearTies(), 1, window, stride)([PICTURE])
    (both,) = Segmenter(NearTies(), 1, window, stride, with_probabilities=True)([PICTURE])
    assert labels.probabilities is None
    assert both.probabilities is not None
    assert both.probabilities.shape == (3, 37, 53)
    assert both.probabilities.dtype == np.float16
    assert np.array_equal(labels.labels, PICTURE.argmax(axis=2))
    assert np.array_equal(both.labels, labels.labels)
    assert not np.array_equal(both.probabilities.argmax(axis=0), labels.labels)  # float16 ties


def test_the_network_sees_one_window_at_a_time() -> None:
    model = NearTies()
    Segmenter(model, 1, (16, 20), (16, 20), with_probabilities=True)([PICTURE])
    assert set(model.seen) == {(16, 20)}
