"""Labels as images."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.data.datasets import Sample
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.inference.dataset_images import contact_sheet
from t2sda.inference.visualisation import (
    BORDER_ALPHA,
    OVERLAY_ALPHA,
    class_counts,
    color_map,
    legend,
    overlay,
    side_by_side,
)
from t2sda.streets import draw_street

ROAD, SKY, CAR = 0, 10, 13
PALETTE = np.array(CITYSCAPES_19.palette)


def test_colors_are_the_taxonomy_s() -> None:
    labels = np.array([[ROAD, CAR], [SKY, 255]], np.uint8)
    colors = color_map(labels, CITYSCAPES_19)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[128, 64, 128], [0, 0, 142]], [[70, 130, 180], [0, 0, 0]]]


def test_overlay_by_hand() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    labels = np.full((4, 4), SKY, np.uint8)
    labels[:, 2:] = CAR
    drawn = overlay(image, labels, CITYSCAPES_19).astype(float)
    mixed = 100 * (1 - OVERLAY_ALPHA) + OVERLAY_ALPHA * PALETTE
    np.testing.assert_allclose(drawn[:, 0], np.tile(mixed[SKY], (4, 1)), atol=1)  # rounding
    np.testing.assert_allclose(drawn[:, 3], np.tile(mixed[CAR], (4, 1)), atol=1)
    line = mixed[SKY] + BORDER_ALPHA * (255 - mixed[SKY])  # the last column of the left class
    np.testing.assert_allclose(drawn[:, 1], np.tile(line, (4, 1)), atol=1)


def test_what_is_no_class_shows_the_image() -> None:
    image, _ = draw_street("clear", 9, 0, (64, 96))
    assert np.array_equal(overlay(image, np.full((64, 96), 255, np.uint8), CITYSCAPES_19), image)


def test_large_images_get_wider_lines() -> None:
    def line_width(size: int) -> int:
        labels = np.full((size, size), ROAD, np.uint8)
        labels[:, size // 2 :] = SKY
        drawn = overlay(np.zeros((size, size, 3), np.uint8), labels, CITYSCAPES_19)
        return int((drawn[size // 2, :, 1] > 180).sum())

    assert line_width(100) == 1
    assert line_width(2000) == 2


def test_counts_of_a_large_image_are_those_of_its_parts() -> None:
    labels = np.zeros((3, 700_001), np.uint8)
    labels[1:, 5:] = CAR
    counts = class_counts(labels, CITYSCAPES_19)
    assert counts[[ROAD, CAR]].tolist() == [700_001 + 10, 2 * 699_996]
    assert counts.sum() == labels.size


def test_counts_leave_out_what_is_no_class() -> None:
    counts = class_counts(np.array([[ROAD, ROAD, SKY, 255]], np.uint8), CITYSCAPES_19)
    assert counts.shape == (19,)
    assert counts[[ROAD, SKY]].tolist() == [2, 1]
    assert counts.sum() == 3


def test_legend_shows_the_classes_that_are_there_and_no_others() -> None:
    counts = np.zeros(19, np.int64)
    counts[[ROAD, CAR]] = [1, 99]
    drawn = legend(counts, CITYSCAPES_19, width=400)
    colors = {tuple(color) for color in drawn.reshape(-1, 3).tolist()}
    present = {tuple(color) for color in PALETTE.tolist()} & colors
    assert present == {CITYSCAPES_19.palette[ROAD], CITYSCAPES_19.palette[CAR]}
    car = (drawn == CITYSCAPES_19.palette[CAR]).all(axis=2)
    road = (drawn == CITYSCAPES_19.palette[ROAD]).all(axis=2)
    assert car.any(axis=0).argmax() <= road.any(axis=0).argmax()  # the larger share comes first
    assert drawn.shape[1] == 400


def test_legend_of_all_classes_fits_its_width() -> None:
    for width in (100, 300, 1000, 3000):
        drawn = legend(np.arange(1, 20), CITYSCAPES_19, width)
        if width > 300:
            assert drawn.shape[1] == width
        assert (drawn[:, -8:] == 255).all()  # nothing is cut off at the right
        for color in CITYSCAPES_19.palette:
            assert (drawn == color).all(axis=2).any()


def test_legend_of_nothing() -> None:
    assert legend(np.zeros(19, np.int64), CITYSCAPES_19, width=200).shape[1] == 200


def test_side_by_side_holds_both() -> None:
    image, labels = draw_street("clear", 9, 0, (270, 480))
    sheet = side_by_side(image, labels, CITYSCAPES_19, height=270)
    height, width, channels = sheet.shape
    assert channels == 3
    assert width == 2 * 480 + 3 * 16
    assert height > 270 + 16
    assert np.array_equal(sheet[16:286, 16:496], image)
    assert np.array_equal(sheet[16:286, 512:992], overlay(image, labels, CITYSCAPES_19))


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (2, 3000), (1, 1)])
def test_a_panel_of_a_strip_stays_small(size: tuple[int, int]) -> None:
    panel = side_by_side(np.full((*size, 3), 90, np.uint8), np.zeros(size, np.uint8), CITYSCAPES_19)
    assert panel.shape[0] <= 1000
    assert panel.shape[1] <= 2 * 4 * 540 + 100


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3000, 2)])
def test_a_contact_sheet_of_strips_stays_small(size: tuple[int, int]) -> None:
    image, label = np.full((*size, 3), 90, np.uint8), np.zeros(size, np.uint8)
    sheet = contact_sheet([Sample("a.png", image, label)] * 3, CITYSCAPES_19)
    assert sheet.shape[0] <= 1200
    assert sheet.shape[1] <= 1400
