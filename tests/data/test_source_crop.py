"""The window that is trained on: drawn anew for a wanted class, decided by the inner window."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.data.rare_classes import WantedClass
from t2sda.data.samplers import sample_generator
from t2sda.data.source_crop import RARE_CLASS_REDRAWS, draw_source_crop

SIZE = (60, 80)


@pytest.fixture
def label() -> np.ndarray:
    """Class 1 in the upper left quarter, 0 elsewhere."""
    label = np.zeros(SIZE, dtype=np.uint8)
    label[:30, :40] = 1
    return label


def pixels_of_class_1(label: np.ndarray, wanted: WantedClass | None, position: int) -> int:
    crop = draw_source_crop(
        label,
        (16, 16),
        sample_generator(0, position, "source crop"),
        outer_size=(40, 50),
        max_class_share=1.0,
        wanted=wanted,
    )
    return int(crop.inner.of(crop.outer.of(label)).sum())


def test_the_inner_window_holds_the_wanted_class_more_often(label: np.ndarray) -> None:
    wanted = WantedClass(train_id=1, pixels=100)
    without = np.mean([pixels_of_class_1(label, None, i) > 100 for i in range(3000)])
    found = np.mean([pixels_of_class_1(label, wanted, i) > 100 for i in range(1000)])
    # The first draw and ten redraws are independent: 1 - (1 - p) ** 11; five standard errors.
    assert found == pytest.approx(1 - (1 - without) ** (RARE_CLASS_REDRAWS + 1), abs=0.02)


def test_without_the_class_the_last_draw_is_taken(label: np.ndarray) -> None:
    never = WantedClass(train_id=7, pixels=0)
    assert 0 <= pixels_of_class_1(label, never, 0) <= 256


def test_more_than_the_wanted_pixels_are_needed() -> None:
    whole = np.zeros((16, 16), dtype=np.uint8)
    draws = CountingGenerator()
    for pixels, tries in ((255, 1), (256, RARE_CLASS_REDRAWS + 1)):
        draws.count = 0
        draw_source_crop(
            whole,
            (16, 16),
            draws,  # type: ignore[arg-type]
            outer_size=None,
            max_class_share=1.0,
            wanted=WantedClass(0, pixels),
        )
        assert draws.count == 2 * tries  # a row and a column each


class CountingGenerator:
    """Counts what is drawn; everything is 0."""

    count = 0

    def integers(self, high: int) -> int:
        self.count += 1
        return 0
