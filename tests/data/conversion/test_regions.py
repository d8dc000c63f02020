"""Which pixels a shape covers: masks drawn by hand, and those that the tools' own packages give."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.data.conversion.coco import unpacked
from t2sda.data.conversion.labelstudio import Brush
from t2sda.data.conversion.regions import DrawnPolygon, Ellipse, Polygon, Runs, as_points, rectangle

BRUSH = (
    *(0, 0, 0, 216, 57, 27, 254, 43, 0, 194, 127, 247, 192),
    *(35, 255, 140, 2, 223, 253, 240, 12, 39, 255, 147, 192, 0),
)
"""`mask2rle` of label_studio_converter 0.0.59 of the mask below."""
BRUSH_MASK = """
.........
..#####..
..#.###..
..#####..
.........
.........
"""


def drawn(mask: np.ndarray) -> str:
    return "\n" + "".join(
        "".join(".#"[int(pixel)] for pixel in row) + "\n" for row in mask.tolist()
    )


def test_a_rectangle_covers_what_pycocotools_says() -> None:
    mask = Polygon([(1, 1), (5, 1), (5, 4), (1, 4)]).mask((6, 8))
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_pixel_belongs_to_the_outline_that_its_center_lies_in() -> None:
    dice = np.random.default_rng(0)
    for _ in range(20):
        corners = dice.uniform(-5, 25, (3, 2))
        mask = Polygon(corners.tolist()).mask((18, 21))
        rows, columns = np.mgrid[:18, :21] + 0.5
        sides = []
        for (x, y), (next_x, next_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            sides.append((next_x - x) * (rows - y) - (next_y - y) * (columns - x) > 0)
        inside = np.all(sides, axis=0) | ~np.any(sides, axis=0)
        np.testing.assert_array_equal(mask, inside)


def test_what_an_outline_encloses_twice_is_outside() -> None:
    outer = [(0, 0), (6, 0), (6, 6), (0, 6), (0, 0)]
    inner = [(2, 2), (4, 2), (4, 4), (2, 4), (2, 2)]
    mask = Polygon([*outer, *inner]).mask((6, 6))
    assert mask.sum() == 36 - 4
    assert not mask[2:4, 2:4].any()


def test_two_shapes_that_share_a_border_leave_no_gap_and_no_overlap() -> None:
    left = Polygon([(0, 0), (3.3, 0), (6.1, 9), (0, 9)]).mask((9, 10))
    right = Polygon([(3.3, 0), (10, 0), (10, 9), (6.1, 9)]).mask((9, 10))
    assert (left ^ right).all()


def test_a_polygon_far_outside_covers_nothing_of_the_image() -> None:
    assert not Polygon([(1e300, 1e300), (1e301, 1e300), (1e300, 1e301)]).mask((4, 5)).any()
    assert not Polygon([(2, 2)]).mask((4, 5)).any()
    with pytest.raises(ValueError, match="finite"):
        as_points([(float("nan"), 1)])


def test_an_outline_as_pillow_draws_it_has_its_border_as_well() -> None:
    corners = [(1, 1), (4, 1), (4, 3), (1, 3)]
    assert DrawnPolygon(corners).mask((6, 8)).sum() == 4 * 3
    assert Polygon(corners).mask((6, 8)).sum() == 3 * 2


def test_a_rectangle_turned_by_a_right_angle() -> None:
    # Around its left upper corner, clockwise: what lay to the right lies below, to the left.
    turned = rectangle(4, 1, 3, 2, 90.0, (4, 1)).mask((6, 8))
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 2:4] = True
    np.testing.assert_array_equal(turned, expected)


def test_an_ellipse_turned_by_a_right_angle_has_its_axes_exchanged() -> None:
    np.testing.assert_array_equal(
        Ellipse(6, 5, 5, 2, 90.0).mask((10, 12)), Ellipse(6, 5, 2, 5).mask((10, 12))
    )
    assert Ellipse(6, 5, 5, 2).mask((10, 12)).sum() == pytest.approx(np.pi * 10, rel=0.05)
    assert not Ellipse(6, 5, 0, 2).mask((10, 12)).any()


def test_run_lengths_of_coco_are_those_of_pycocotools() -> None:
    # pycocotools.mask.encode of a ring in 5x7; [42, 1] and [1, 2, 2, 1] by hand from maskApi.c.
    mask = Runs(unpacked(";32NO0129"), by_columns=True).mask((5, 7))
    assert drawn(mask) == "\n.......\n..###..\n..#.#..\n..###..\n.......\n"
    assert unpacked("Z11") == [42, 1]
    assert unpacked("122O") == [1, 2, 2, 1]


@pytest.mark.parametrize("counts", ["Z", "1 1", "1é"])
def test_run_lengths_that_are_none(counts: str) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        unpacked(counts)


@pytest.mark.parametrize("lengths", [[3], [1 << 40], [-1, 13]])
def test_run_lengths_of_another_size_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"runs of .* pixels for 3x4"):
        Runs(lengths, by_columns=False).mask((3, 4))


def test_a_box_that_leaves_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves its image"):
        Runs([0, 4], by_columns=False, box=(3, 0, 2, 2)).mask((3, 4))
    with pytest.raises(ValueError, match="leaves its image"):  # before a terabyte is asked for
        Runs([1 << 40], by_columns=False, box=(0, 0, 1 << 20, 1 << 20)).mask((3, 4))


def test_a_brush_of_label_studio_is_that_of_its_converter() -> None:
    assert drawn(Brush(BRUSH).mask((6, 9))) == BRUSH_MASK


@pytest.mark.parametrize(
    ("packed", "size"), [(BRUSH[:12], (6, 9)), (BRUSH, (6, 8)), (BRUSH, (9, 9))]
)
def test_a_brush_that_is_cut_short_or_of_another_size_is_refused(
    packed: tuple[int, ...], size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="brush"):
        Brush(packed).mask(size)
