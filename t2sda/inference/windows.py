"""Images larger than a network takes at once, window by window.

`segment_by_windows`: every pixel gets what the window says in whose middle it lies, overlaps are
cut in half. Nothing but one window and the result is in memory, and files of labels can be used as
well as files of logits. `segment_by_mean`: the mean of logits where windows overlap; logits of one
band of windows are in memory. `average_windows`, for scores: the same mean, of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from t2sda.data.transforms import Box
from t2sda.errors import UserError
from t2sda.inference.overlapped import in_batches

Segment = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Images (h, w, 3) -> of each an array whose last two axes are (h, w)."""


class Window(NamedTuple):
    """What the network sees, and the part of it that is kept."""

    seen: Box
    kept: Box


def windows(
    size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]
) -> Iterator[Window]:
    """Windows that cover an image of `size` (height, width), row by row.

    The last of a row ends at the border; an image smaller than the window is one window.
    """
    check_stride(window, stride)
    rows, columns = (_spans(*sides) for sides in zip(size, window, stride, strict=True))
    for top, bottom, first_row, last_row in rows:
        for left, right, first_column, last_column in columns:
            yield Window(
                Box(top, left, bottom - top, right - left),
                Box(first_row, first_column, last_row - first_row, last_column - first_column),
            )


def default_step(window: Sequence[int]) -> tuple[int, int]:
    """From one window to the next where nobody says: two thirds of it, rounded up."""
    height, width = (-(-2 * side // 3) for side in window)
    return height, width


def check_stride(window: Sequence[int], stride: Sequence[int]) -> None:
    """Raise UserError if pixels between windows would be left out."""
    if any(step > side for step, side in zip(stride, window, strict=True)):
        raise UserError(
            f"--stride {stride[0]} {stride[1]} is larger than --window {window[0]} {window[1]}: "
            f"pixels between the windows would be left out"
        )


def segment_by_windows(
    segment: Segment,
    image: np.ndarray,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int = 1,
) -> np.ndarray:
    """The result for an image (H, W, 3), put together from its windows.

    Args:
        segment: of windows, `batch_size` at once.
        image: of any size.
        window: (height, width).
        stride: (height, width) from one window to the next.
        batch_size: windows at once.

    Returns:
        (..., H, W) in the type of `segment`'s results.
    """
    size = (image.shape[0], image.shape[1])
    result: np.ndarray | None = None
    for batch in in_batches(windows(size, window, stride), batch_size):
        pieces = segment([np.ascontiguousarray(item.seen.of(image)) for item in batch])
        for (seen, kept), piece in zip(batch, pieces, strict=True):
            if result is None:
                result = np.empty((*piece.shape[:-2], *size), dtype=piece.dtype)
            rows = slice(kept.top, kept.top + kept.height)
            columns = slice(kept.left, kept.left + kept.width)
            top, left = kept.top - seen.top, kept.left - seen.left
            result[..., rows, columns] = piece[
                ..., top : top + kept.height, left : left + kept.width
            ]
    assert result is not None
    return result


def segment_by_mean(
    logits_of: Segment,
    finish: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int = 1,
) -> np.ndarray:
    """The result for an image (H, W, 3) of the mean of its windows' logits.

    Bands of windows go across the shorter side of the image.

    Args:
        logits_of: windows, `batch_size` at once -> (C, h, w) float32 of each.
        finish: mean logits (C, n, m) of a part of the image -> (..., n, m), pixel by pixel.
        image, window, stride, batch_size: see `segment_by_windows`.

    Returns:
        (..., H, W) in the type that `finish` gives.
    """
    if image.shape[0] >= image.shape[1]:
        return _by_bands(logits_of, finish, image, window, stride, batch_size)

    def transposed_logits_of(pieces: list[np.ndarray]) -> list[np.ndarray]:
        upright = [np.ascontiguousarray(piece.swapaxes(0, 1)) for piece in pieces]
        return [logits.swapaxes(-1, -2) for logits in logits_of(upright)]

    (height, width), (down, right) = window, stride
    turned = image.swapaxes(0, 1)
    found = _by_bands(
        transposed_logits_of, finish, turned, (width, height), (right, down), batch_size
    )
    return np.ascontiguousarray(found.swapaxes(-1, -2))


def _by_bands(
    logits_of: Segment,
    finish: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int,
) -> np.ndarray:
    """Row of windows by row of windows: what no later one sees is finished at once."""
    check_stride(window, stride)
    size = (image.shape[0], image.shape[1])
    rows, columns = (_spans(*sides) for sides in zip(size, window, stride, strict=True))
    total = result = None
    count = np.zeros((rows[0][1], size[1]), dtype=np.float32)
    next_tops = [*(begin for begin, *_ in rows[1:]), size[0]]
    for (top, bottom, *_), next_top in zip(rows, next_tops, strict=True):
        band = image[top:bottom]
        for batch in in_batches(columns, batch_size):
            pieces = [np.ascontiguousarray(band[:, left:right]) for left, right, *_ in batch]
            for (left, right, *_), logits in zip(batch, logits_of(pieces), strict=True):
                if total is None:
                    total = np.zeros((len(logits), *count.shape), dtype=np.float32)
                total[..., left:right] += logits
                count[:, left:right] += 1
        assert total is not None
        done = next_top - top
        finished = finish(total[:, :done] / count[:done])
        if result is None:
            result = np.empty((*finished.shape[:-2], *size), dtype=finished.dtype)
        result[..., top:next_top, :] = finished
        for sums in (total, count):
            sums[..., : bottom - top - done, :] = sums[..., done:, :].copy()
            sums[..., bottom - top - done :, :] = 0
    assert result is not None
    return result


def average_windows(
    maps_of: Callable[[Box], np.ndarray],
    size: tuple[int, int],
    window: tuple[int, int],
    step: tuple[int, int],
) -> np.ndarray:
    """What windows say of an image, the mean where they overlap.

    Args:
        maps_of: a part of the image -> (..., h, w) float32 of its size, such as logits.
        size: (height, width) of the image.
        window, step: see `windows`.

    Returns:
        (..., H, W) float32.
    """
    total: np.ndarray | None = None
    count = np.zeros(size, dtype=np.float32)
    for seen, _ in windows(size, window, step):
        maps = maps_of(seen)
        if total is None:
            total = np.zeros((*maps.shape[:-2], *size), dtype=np.float32)
        rows = slice(seen.top, seen.top + seen.height)
        columns = slice(seen.left, seen.left + seen.width)
        total[..., rows, columns] += maps
        count[rows, columns] += 1
    assert total is not None
    total /= count
    return total


def _spans(size: int, window: int, stride: int) -> list[tuple[int, int, int, int]]:
    """Along one side: begin and end of what is seen, begin and end of what is kept."""
    window = min(window, size)
    begins = [*range(0, size - window, stride), size - window]
    ends = [begin + window for begin in begins]
    cuts = [
        (end + begin) // 2 for end, begin in zip(ends[:-1], begins[1:], strict=True)
    ]  # in the middle of every overlap
    return list(zip(begins, ends, [0, *cuts], [*cuts, size], strict=True))
