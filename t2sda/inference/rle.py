"""Masks of classes as COCO has them: runs down the columns, compressed to text.

The format is that of pycocotools' `mask.encode`, which reads and writes the same; it is a C
extension that running a file does not need.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_BITS, _CONTINUED, _SIGN, _FIRST_LETTER = 5, 0x20, 0x10, 48
_MOST_LETTERS = 13
"""Of 5 bits each, for numbers of 64 bits."""


def masks_of(labels: np.ndarray) -> Mapping[int, str]:
    """Labels (H, W) -> the compressed runs of every label that occurs, by label."""
    flat = labels.T.ravel()  # COCO's order: down the columns
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(begins[1:], flat.size)
    values = flat[begins]
    return {
        int(value): compressed(_runs(begins[values == value], ends[values == value], flat.size))
        for value in np.unique(values)
    }


def _runs(begins: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """Lengths in turn outside and inside of a mask, from outside on; the first may be 0."""
    edges = np.stack([begins, ends], axis=1).ravel()
    edges = edges if edges[-1] == size else np.append(edges, size)
    return np.diff(edges, prepend=0)


def compressed(counts: np.ndarray) -> str:
    """Lengths of runs as COCO's text.

    From the fourth on a length is written as the difference to the one before the last; numbers in
    two's complement as letters of 5 bits, the lowest first, with a sixth bit where more follow.
    """
    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    letters = np.zeros((len(rest), _MOST_LETTERS), dtype=np.uint8)
    open_ = np.ones(len(rest), dtype=bool)
    for place in range(_MOST_LETTERS):
        bits = rest & (_CONTINUED - 1)
        rest >>= _BITS
        more = np.where(bits & _SIGN, rest != -1, rest != 0)
        letters[open_, place] = (bits | np.where(more, _CONTINUED, 0))[open_] + _FIRST_LETTER
        open_ &= more
    return letters[letters > 0].tobytes().decode("ascii")
