"""Images of every kind become (H, W, 3) uint8 RGB."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.errors import MissingFileError, UnreadableFileError, UserError
from t2sda.images import check_image, read_image

RED, GREEN = (255, 0, 0), (0, 128, 0)
PIXELS = np.array([[RED, GREEN, RED], [GREEN, GREEN, GREEN]], dtype=np.uint8)
"""(2, 3, 3)."""


def saved(path: Path, image: Image.Image, **options: object) -> np.ndarray:
    image.save(path, **options)
    return read_image(path)


def test_rgb_is_kept(tmp_path: Path) -> None:
    assert np.array_equal(saved(tmp_path / "a.png", Image.fromarray(PIXELS)), PIXELS)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])  # Pillow turns the latter itself
@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, PIXELS),
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.swapaxes(0, 1)),
        (6, np.rot90(PIXELS, -1)),
        (7, PIXELS[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90(PIXELS, 1)),
        (9, PIXELS),  # undefined
    ],
)
def test_exif_orientation_is_applied(
    tmp_path: Path, name: str, orientation: int, seen: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(saved(tmp_path / name, Image.fromarray(PIXELS), exif=exif), seen)


def exif_of(*entries: bytes) -> bytes:
    """EXIF of one directory, of entries of 12 bytes."""
    header = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    return header + b"".join(entries) + bytes(4)


def test_damaged_exif_costs_no_more_than_the_orientation(tmp_path: Path) -> None:
    width = struct.pack("<HHIf", 0x0100, 11, 1, 1.5)  # a float, where Pillow would write a whole
    on_its_side = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    for exif, shape in (
        (exif_of(width, on_its_side), (24, 16, 3)),
        (b"Exif\0\0no TIFF", (16, 24, 3)),
    ):
        image = saved(tmp_path / "a.jpg", Image.new("RGB", (24, 16), RED), exif=exif)
        assert image.shape == shape


@pytest.mark.parametrize(
    "error", [struct.error, TypeError, KeyError, EOFError, OverflowError, ZeroDivisionError]
)
def test_whatever_pillow_stumbles_over_is_an_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(image: Image.Image) -> None:
        raise error("odd")

    Image.new("RGB", (4, 4)).save(tmp_path / "a.bmp")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", fail)
    with pytest.raises(UnreadableFileError, match=r"a\.bmp: cannot be decoded .*odd"):
        read_image(tmp_path / "a.bmp")


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    grey = np.array([[0, 77], [128, 255]], dtype=np.uint8)
    image = saved(tmp_path / "a.png", Image.fromarray(grey))
    assert np.array_equal(image, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tif"])
def test_16_bit_grey_is_scaled_not_cut(tmp_path: Path, name: str) -> None:
    grey = np.array([[0, 257], [128 * 257, 65535]], dtype=np.uint16)
    image = saved(tmp_path / name, Image.fromarray(grey))
    assert image.tolist() == [[[0] * 3, [1] * 3], [[128] * 3, [255] * 3]]


def test_palette_becomes_its_colors(tmp_path: Path) -> None:
    indices = Image.fromarray(np.array([[0, 1, 0], [1, 1, 1]], dtype=np.uint8)).convert("P")
    indices.putpalette([*RED, *GREEN])
    assert np.array_equal(saved(tmp_path / "a.png", indices), PIXELS)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], dtype=np.uint8)
    image = saved(tmp_path / "rgba.png", Image.fromarray(rgba))
    assert image.tolist() == [[[255, 0, 0], [255, 0, 0]]]

    grey_alpha = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    image = saved(tmp_path / "la.png", Image.fromarray(grey_alpha, "LA"))
    assert image.tolist() == [[[10] * 3, [10] * 3]]

    indices = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    indices.putpalette([*RED, *GREEN])
    image = saved(tmp_path / "p.png", indices, transparency=1)
    assert image.tolist() == [[list(RED), list(GREEN)]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    cmyk = Image.fromarray(np.full((8, 8, 3), RED, np.uint8)).convert("CMYK")
    image = saved(tmp_path / "a.jpg", cmyk, quality=95)
    assert image.shape == (8, 8, 3)
    assert np.abs(image.astype(int) - RED).max() < 12  # lossy


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", Image.fromarray(np.array([[True, False]])))
    assert image.tolist() == [[[255] * 3, [0] * 3]]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 2), color) for color in (RED, GREEN)]
    image = saved(tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:])
    assert np.abs(image.astype(int) - RED).max() < 12  # lossy


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (np.float32, 1.5, "floating-point values go from 1.5"),
        (np.float32, np.nan, "floating-point values go from nan"),
        (np.int32, 70, "32-bit integers"),
    ],
)
def test_grey_without_a_defined_white(
    tmp_path: Path, dtype: type, value: float, message: str
) -> None:
    path = tmp_path / "depth.tif"
    Image.fromarray(np.full((2, 2), value, dtype)).save(path)
    with pytest.raises(UnreadableFileError, match=f"depth.tif: .*{message}.*8 or 16 bits"):
        read_image(path)


def test_text_called_jpg(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(UnreadableFileError, match=r"notes\.jpg: .*no known image format"):
        read_image(path)


def test_cut_off_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UnreadableFileError, match=r"cut\.jpg: cannot be decoded"):
        read_image(path)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    Image.new("RGB", (30, 30)).save(path)
    monkeypatch.setattr("t2sda.images.files.MAX_PIXELS", 400)
    with pytest.raises(UnreadableFileError, match=r"huge\.png: .*decompression bombs"):
        read_image(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(UnreadableFileError, match="is a folder, not a file"):
        read_image(tmp_path)


def test_arrays_are_checked() -> None:
    check_image(PIXELS)
    for wrong in (PIXELS[..., :2], PIXELS[:0], PIXELS.astype(float), PIXELS[..., 0]):
        with pytest.raises(UserError, match="an image is a path, a uint8 RGB array"):
            check_image(wrong)
