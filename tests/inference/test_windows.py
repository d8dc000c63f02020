"""Sliding windows: every pixel once, from the window in whose middle it lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2sda.errors import UserError
from t2sda.inference.windows import (
    average_windows,
    segment_by_mean,
    segment_by_windows,
    windows,
)

SIDES = st.tuples(st.integers(1, 60), st.integers(1, 60))


@settings(max_examples=60, deadline=None)
@given(size=SIDES, window=SIDES, share=st.floats(0.2, 1.0))
def test_every_pixel_is_kept_once(
    size: tuple[int, int], window: tuple[int, int], share: float
) -> None:
    stride = (max(int(window[0] * share), 1), max(int(window[1] * share), 1))
    covered = np.zeros(size, dtype=int)
    for item in windows(size, window, stride):
        item.kept.of(covered)[...] += 1
        seen, kept = item.seen, item.kept
        assert seen.top <= kept.top
        assert kept.top + kept.height <= seen.top + seen.height
        assert (seen.height, seen.width) == (min(window[0], size[0]), min(window[1], size[1]))
    assert (covered == 1).all()


def test_overlaps_are_cut_in_the_middle() -> None:
    found = [(item.seen, item.kept) for item in windows((4, 10), (4, 6), (4, 4))]
    assert [(tuple(seen), tuple(kept)) for seen, kept in found] == [
        ((0, 0, 4, 6), (0, 0, 4, 5)),
        ((0, 4, 4, 6), (0, 5, 4, 5)),
    ]


def test_what_depends_on_pixels_alone_does_not_see_the_windows() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    result = segment_by_windows(
        lambda pieces: [np.moveaxis(piece, 2, 0) for piece in pieces], image, (16, 20), (9, 11), 3
    )
    assert np.array_equal(result, np.moveaxis(image, 2, 0))


def test_strides_that_leave_pixels_out() -> None:
    with pytest.raises(UserError, match="--stride 8 4 is larger than --window 6 6"):
        list(windows((20, 20), (6, 6), (8, 4)))


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (7, 40), (37, 5)])
def test_the_mean_by_bands_is_that_of_the_whole_image(size: tuple[int, int]) -> None:
    dice = np.random.default_rng(0)
    image = dice.integers(0, 256, (*size, 3), dtype=np.uint8)
    window, stride = (16, 20), (9, 11)
    seen: list[int] = []

    def logits_of(pieces: list[np.ndarray]) -> list[np.ndarray]:
        """What depends on the window: its pixels beside the number of its row."""
        seen.append(len(pieces))
        rows = np.arange(pieces[0].shape[0], dtype=np.float32)[:, None, None]
        return [np.moveaxis(piece + rows * piece[:1], 2, 0).astype(np.float32) for piece in pieces]

    found = segment_by_mean(logits_of, lambda logits: logits * 2, image, window, stride, 2)
    expected = average_windows(lambda box: logits_of([box.of(image)])[0], size, window, stride)
    assert found.shape == (3, *size)
    np.testing.assert_allclose(found, 2 * expected, rtol=1e-5)  # sums in another order
    assert max(seen) <= 2


def test_the_mean_refuses_strides_that_leave_pixels_out() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="--stride 8 4 is larger than --window 6 6"):
        segment_by_mean(lambda pieces: pieces, lambda maps: maps, image, (6, 6), (8, 4))
