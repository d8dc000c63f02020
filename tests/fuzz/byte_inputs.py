"""Bytes that are damaged, and a source of even choices."""

from __future__ import annotations

import random

from hypothesis import strategies as st

RANDOM = st.integers(0, 2**64 - 1).map(random.Random)
"""Chooses evenly: Hypothesis itself would repeat what it has tried, and leave whole kinds out."""


_CUT = st.tuples(st.integers(0, 10**6), st.integers(0, 40), st.binary(max_size=12))
_FLIP = st.tuples(st.integers(0, 10**6), st.integers(0, 7))


def damaged(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes with up to three places overwritten, cut out or filled in."""
    return st.builds(_cut, texts, st.lists(_CUT, min_size=1, max_size=3))


def flipped(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes of which some bits are others."""
    return st.builds(_flip, texts, st.lists(_FLIP, min_size=1, max_size=5))


def _cut(text: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, inserted in places:
        begin = place % (len(text) + 1)
        text = text[:begin] + inserted + text[begin + length :]
    return text


def _flip(text: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(text)
    for place, bit in places:
        changed[place % len(changed)] ^= 1 << bit
    return bytes(changed)
