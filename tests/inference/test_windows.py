"""Sliding windows: every pixel once, from the window in whose middle it lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2sda.errors import UserError
from t2sda.inference.windows import segment_by_windows, windows

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
