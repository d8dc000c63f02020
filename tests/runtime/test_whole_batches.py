"""Graphs of a fixed number of images."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.runtime.whole_batches import whole_batches


@pytest.mark.parametrize("number", [1, 3, 4, 7, 8])
def test_batches_are_filled_up_and_cut_again(number: int) -> None:
    seen: list[int] = []

    def run(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images * 2

    images = np.arange(number * 6).reshape(number, 2, 3)
    assert np.array_equal(whole_batches(run, 4)(images), 2 * images)
    assert set(seen) == {4}


def test_what_takes_any_number_or_one_is_left_as_it_is() -> None:
    def run(images: np.ndarray) -> np.ndarray:
        return images

    assert whole_batches(run, None) is run
    assert whole_batches(run, 1) is run
