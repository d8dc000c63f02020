"""COCO's runs against its own library, and worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.inference.rle import compressed, masks_of


def test_a_mask_by_hand() -> None:
    # Down the columns 0 0, 7 7, 7 0. Of 7: 2 outside, 3 inside, 1 outside.
    # Of 0: none outside, 2 inside, 3 outside, 1 inside, which is written as 1 - 2 = -1: 11111.
    labels = np.array([[0, 7, 7], [0, 7, 0]], dtype=np.uint8)
    assert masks_of(labels) == {7: "231", 0: "023" + chr(48 + 31)}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 70), (300, 3)])
def test_masks_are_those_of_pycocotools(size: tuple[int, int]) -> None:
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    dice = np.random.default_rng(size[0])
    blocks = dice.integers(0, 4, (-(-size[0] // 7), -(-size[1] // 5))).astype(np.uint8)
    smooth = np.kron(blocks, np.ones((7, 5), dtype=np.uint8))[: size[0], : size[1]]
    for labels in (smooth, dice.integers(0, 3, size).astype(np.uint8)):
        found = masks_of(labels)
        assert set(found) == set(np.unique(labels).tolist())
        for value, text in found.items():
            inside = np.asfortranarray(labels == value).astype(np.uint8, order="F")
            assert text == mask.encode(inside)["counts"].decode()
            decoded = mask.decode({"size": list(size), "counts": text})
            assert np.array_equal(decoded, labels == value)


def test_long_runs_take_several_letters() -> None:
    # 100 = 3 * 32 + 4: bits 00100 with more to come, then 00011, which ends the number.
    assert compressed(np.array([100])) == chr(48 + 32 + 4) + chr(48 + 3)
    # The fourth is written as 1 - 3 = -2: bits 11110, the sign within.
    assert compressed(np.array([0, 3, 5, 1])) == "035" + chr(48 + 30)
