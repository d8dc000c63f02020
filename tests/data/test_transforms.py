"""Geometry: sizes worked out by hand, and laws."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.data.transforms import (
    Box,
    check_crop_fits,
    keep_ratio_size,
    random_box,
    random_box_by_label,
    resize_label,
)
from t2sda.errors import UserError


@pytest.mark.parametrize(
    ("size", "bound", "expected"),
    [
        ((1052, 1914), (720, 1280), (704, 1280)),  # GTA5 in the DAFormer family
        ((1046, 1914), (720, 1280), (700, 1280)),
        ((1052, 1914), (1440, 2560), (1407, 2560)),
        ((760, 1280), (760, 1280), (760, 1280)),  # SYNTHIA
        ((1024, 2048), (512, 1024), (512, 1024)),  # Cityscapes
        ((1914, 1052), (720, 1280), (1280, 704)),  # portrait: long side against long side
    ],
)
def test_keep_ratio_sizes(
    size: tuple[int, int], bound: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert keep_ratio_size(size, bound) == expected


def test_resized_label_invents_no_class() -> None:
    label = np.random.default_rng(0).choice([3, 17, 255], (37, 53)).astype(np.uint8)
    assert set(np.unique(resize_label(label, (20, 90)))) <= {3, 17, 255}


def test_boxes_reach_every_corner_and_stay_inside() -> None:
    generator = np.random.default_rng(0)
    boxes = [random_box((5, 6), (4, 4), generator) for _ in range(200)]
    assert {(box.top, box.left) for box in boxes} == {(t, x) for t in (0, 1) for x in (0, 1, 2)}


def test_dominated_crops_are_drawn_anew() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[:, 56:] = 1  # only windows at the right edge hold two classes
    generator = np.random.default_rng(0)
    free = [random_box_by_label(label, (16, 16), 1.0, generator) for _ in range(200)]
    chosen = [random_box_by_label(label, (16, 16), 0.75, generator) for _ in range(200)]
    mixed = [sum(np.unique(b.of(label)).size == 2 for b in boxes) for boxes in (free, chosen)]
    assert mixed[1] > 2 * mixed[0]


def test_ignored_pixels_do_not_dominate() -> None:
    label = np.full((16, 16), 255, np.uint8)
    label[0, :2] = (0, 1)
    box = random_box_by_label(label, (16, 16), 0.75, np.random.default_rng(0))
    assert box == Box(0, 0, 16, 16)


def test_image_smaller_than_the_crop_says_what_to_set() -> None:
    with pytest.raises(
        UserError, match=r"a\.png: 40x60 .* smaller than DATA.CROP_SIZE 41x60.*DATA.SOURCE_SIZE"
    ):
        check_crop_fits((40, 60), (41, 60), "a.png", "DATA.SOURCE_SIZE")


def test_a_dominated_crop_is_drawn_anew_ten_times_as_in_mmsegmentation() -> None:
    class Counting:
        draws = 0

        def integers(self, high: int) -> int:
            self.draws += 1
            return 0

    generator = Counting()
    random_box_by_label(np.zeros((32, 32), np.uint8), (16, 16), 0.75, generator)  # type: ignore[arg-type]
    assert generator.draws == 2 * 11  # a row and a column each
