"""Every decoder that is used gives the pixels of Pillow, and passes no damage on."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from t2sda.errors import UnreadableFileError
from t2sda.images import faster, read_header, read_image, read_samples

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (48, 80, 3), dtype=np.uint8)
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
PASSES_OF_PNG = (*PASSES, (1, 0, 2, 1))
"""Of interlacing: first row, first column, step of rows, of columns."""


@pytest.fixture(params=["fastest", "plain"], autouse=True)
def decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(faster, "simplejpeg", None)
        monkeypatch.setattr(faster, "imagecodecs", None)


def png(header: bytes, rows: bytes, end: bool = True) -> bytes:
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), *([(b"IEND", b"")] if end else [])]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def rows_of(samples: np.ndarray) -> bytes:
    """Unfiltered; 16 bits with the upper byte first."""
    ordered = samples.astype(samples.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in ordered)


@pytest.mark.parametrize("quality", [60, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(48, 80), (47, 79), (1, 3)])
def test_jpegs_of_every_kind(
    tmp_path: Path, quality: int, subsampling: str, progressive: bool, size: tuple[int, int]
) -> None:
    path = tmp_path / "a.jpg"
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    Image.fromarray(np.ascontiguousarray(NOISE[: size[0], : size[1]])).save(path, **options)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(image))


@pytest.mark.parametrize("divisor", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_decoded_smaller(tmp_path: Path, divisor: int, mode: str) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(NOISE).convert(mode).save(path, quality=90)
    with Image.open(path) as image:
        image.draft(None, (80 // divisor, 48 // divisor))
        expected = np.asarray(image.convert("RGB"))
    smaller = read_image(path, lambda size: (size[0] // divisor, size[1] // divisor))
    np.testing.assert_array_equal(smaller, expected)


def test_a_turned_jpeg_decoded_smaller_has_the_wanted_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / "a.jpg", exif=exif)
    seen: list[tuple[int, int]] = []

    def half(size: tuple[int, int]) -> tuple[int, int]:
        seen.append(size)
        return 40, 24

    assert read_image(tmp_path / "a.jpg", half).shape == (40, 24, 3)
    assert seen == [(80, 48)]  # upright


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_pngs_of_every_kind(tmp_path: Path, bits: int, channels: int, interlaced: bool) -> None:
    samples = RNG.integers(0, 1 << bits, (13, 21, channels)).astype(f"u{bits // 8}")
    color_type = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", 21, 13, bits, color_type, 0, 0, interlaced)
    passes = PASSES_OF_PNG if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(rows_of(samples[top::down, left::right]) for top, left, down, right in passes)
    path = tmp_path / "a.png"
    path.write_bytes(png(header, rows))
    shown = (samples >> (bits - 8)).astype(np.uint8)[..., : min(channels, 3)]
    np.testing.assert_array_equal(read_image(path), np.broadcast_to(shown, (13, 21, 3)))
    np.testing.assert_array_equal(
        read_samples(path), samples.squeeze(-1) if channels == 1 else samples
    )
    found = read_header(path)
    assert (found.size, found.bits, found.alpha) == ((13, 21), bits, channels == 4)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_pngs_of_every_filter(tmp_path: Path, level: int) -> None:
    path = tmp_path / "a.png"
    smooth = cv2.GaussianBlur(NOISE, (9, 9), 3)
    Image.fromarray(smooth).save(path, compress_level=level)
    np.testing.assert_array_equal(read_image(path), smooth)


def damaged(what: str) -> bytes:
    header, rows = struct.pack(">IIBBBBB", 80, 48, 8, 2, 0, 0, 0), rows_of(NOISE)
    whole = png(header, rows)
    if what == "no end":
        return png(header, rows, end=False)
    if what == "rows missing":
        return png(header, rows[: len(rows) // 2])
    if what == "no pixels":
        return png(header, b"")
    if what == "wrong filter":
        return png(header, b"\x09" + rows[1:])
    if what == "wrong checksum":
        return whole[:-5] + b"\0" + whole[-4:]
    if what == "checksum of the pixels":
        return whole[:-16] + bytes(4) + whole[-12:]
    if what == "unknown chunk":
        return whole[:33] + png(header, b"")[33:].replace(b"IDAT", b"CgBI") + whole[33:]
    assert what == "cut in a checksum"
    return whole[:-13]


@pytest.mark.parametrize(
    "what",
    [
        *("no end", "rows missing", "no pixels", "wrong filter", "wrong checksum"),
        *("checksum of the pixels", "unknown chunk", "cut in a checksum"),
    ],
)
def test_damaged_pngs(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damaged(what))
    for read in (read_image, read_samples):
        with pytest.raises(UnreadableFileError, match=r"a\.png: cannot be decoded"):
            read(path)


def test_what_runs_a_program_is_not_opened(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "a.eps")
    for read in (read_image, read_samples, read_header):
        with pytest.raises(UnreadableFileError, match="of no known image format"):
            read(tmp_path / "a.eps")
    buffer = io.BytesIO((tmp_path / "a.eps").read_bytes())
    assert Image.open(buffer).format == "EPS"  # Pillow alone would
