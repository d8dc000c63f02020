"""Overlays on dark images, and for readers who cannot tell the colors apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.inference.marks import BRIGHTNESS, DARK, LUMA, bright_palette
from t2sda.inference.visualisation import OverlayStyle, color_map, legend, overlay, side_by_side
from tests.deployed import street
from tests.tiny_onnx import SIZE, write_tiny

NIGHT = np.zeros((120, 160, 3), dtype=np.uint8)
PALETTE = np.array(CITYSCAPES_19.palette)


def two_classes(left: int, right: int) -> np.ndarray:
    labels = np.full(NIGHT.shape[:2], left, dtype=np.uint8)
    labels[:, 80:] = right
    return labels


def luma(colors: np.ndarray) -> np.ndarray:
    return colors.astype(float) @ np.array(LUMA)


def test_opacity_goes_from_the_image_to_the_colors_alone() -> None:
    image, labels = street((120, 160)), two_classes(0, 10)
    inside = (slice(None), slice(0, 70))
    clear = overlay(image, labels, CITYSCAPES_19, OverlayStyle(opacity=0))
    full = overlay(image, labels, CITYSCAPES_19, OverlayStyle(opacity=1))
    np.testing.assert_array_equal(clear[inside], image[inside])
    np.testing.assert_array_equal(full[inside], color_map(labels, CITYSCAPES_19)[inside])


@pytest.mark.parametrize("train_id", range(19))
def test_outlines_of_every_class_are_light_at_night(train_id: int) -> None:
    labels = two_classes(train_id, (train_id + 1) % 19)
    plain = overlay(NIGHT, labels, CITYSCAPES_19)
    drawn = overlay(NIGHT, labels, CITYSCAPES_19, OverlayStyle(outlines=True))
    line = drawn[60, 78]
    assert luma(line) >= min(BRIGHTNESS, 255)
    assert luma(line) > luma(plain[60, 70]) + 30
    np.testing.assert_array_equal(line, bright_palette(CITYSCAPES_19)[train_id])
    assert tuple(drawn[60, 79]) == DARK  # between the two, for light images
    np.testing.assert_array_equal(drawn[60, :70], plain[60, :70])


def test_what_is_no_class_has_no_outline_of_its_own() -> None:
    drawn = overlay(NIGHT, two_classes(255, 13), CITYSCAPES_19, OverlayStyle(outlines=True))
    assert not drawn[60, :79].any()
    assert luma(drawn[60, 81]) >= BRIGHTNESS


def test_light_colors_stay_as_they_are() -> None:
    light = luma(PALETTE) >= BRIGHTNESS
    np.testing.assert_array_equal(bright_palette(CITYSCAPES_19)[light], PALETTE[light])
    assert (luma(bright_palette(CITYSCAPES_19)) >= BRIGHTNESS).all()


def test_numbers_stand_in_their_regions_and_differ() -> None:
    seen = set()
    for train_id in range(19):
        labels = two_classes(train_id, 255)
        plain = overlay(NIGHT, labels, CITYSCAPES_19, OverlayStyle(opacity=0))
        drawn = overlay(NIGHT, labels, CITYSCAPES_19, OverlayStyle(opacity=0, numbers=True))
        changed = (drawn != plain).any(axis=2)
        assert changed.sum() > 20
        assert not changed[:, 80:].any()
        seen.add(changed.tobytes())
    assert len(seen) == 19


def test_a_region_without_room_has_no_number() -> None:
    labels = two_classes(0, 0)
    labels[:, ::4] = 8  # stripes
    style = OverlayStyle(opacity=0)
    plain = overlay(NIGHT, labels, CITYSCAPES_19, style)
    numbered = overlay(NIGHT, labels, CITYSCAPES_19, OverlayStyle(opacity=0, numbers=True))
    np.testing.assert_array_equal(numbered, plain)


def test_a_legend_with_numbers_needs_no_colors() -> None:
    counts = np.zeros(19, dtype=np.int64)
    counts[[0, 13]] = 100, 50
    assert (
        legend(counts, CITYSCAPES_19, width=10, numbers=True).shape[1]
        > legend(counts, CITYSCAPES_19, width=10).shape[1]
    )
    panel = side_by_side(NIGHT, two_classes(0, 13), CITYSCAPES_19, OverlayStyle(numbers=True))
    assert not np.array_equal(panel, side_by_side(NIGHT, two_classes(0, 13), CITYSCAPES_19))


def infer(tmp_path: Path, *words: str) -> int:
    model = write_tiny(tmp_path / "m.onnx")
    Image.fromarray(street(SIZE)).save(tmp_path / "a.png")
    arguments = ["infer", "--model", str(model), "--input", str(tmp_path / "a.png")]
    return main([*arguments, "--output", str(tmp_path / "out"), "--device", "cpu", *words])


def test_from_the_command_line(tmp_path: Path) -> None:
    words = ("--kind", "overlay,trainid", "--opacity", "0.8", "--outlines", "--numbers")
    assert infer(tmp_path, *words) == 0
    image, labels = street(SIZE), np.asarray(Image.open(tmp_path / "out/a_trainid.png"))
    expected = overlay(image, labels, CITYSCAPES_19, OverlayStyle(0.8, outlines=True, numbers=True))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/a_overlay.png")), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--opacity", "1.5"), "'1.5' is no number from 0 to 1"),
        (("--opacity", "nan"), "'nan' is no number from 0 to 1"),
        (("--kind", "color", "--outlines"), "add overlay or panel to --kind"),
    ],
)
def test_styles_that_make_no_sense(
    tmp_path: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = infer(tmp_path, *words)
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


def test_another_style_is_no_resumed_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(tmp_path, "--kind", "overlay") == 0
    assert infer(tmp_path, "--kind", "overlay", "--resume") == 0
    assert infer(tmp_path, "--kind", "overlay", "--resume", "--outlines") == 2
    assert "style" in capsys.readouterr().err
