"""JPEG, by simplejpeg where it is installed: as fast as it gets, and stricter than libjpeg."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from t2sda.images import faster
from t2sda.images.orientation import UPRIGHT, orientation_of

START = b"\xff\xd8\xff"
_DIVISORS = (8, 4, 2)  # others (3/8, 5/8, ...) have no fast code and take longer than 1/1
_SCAN, _APP1, _FILL = 0xDA, 0xE1, 0xFF

Size = tuple[int, int]
"""(height, width)."""


class JpegHeader(NamedTuple):
    """What a JPEG says before its pixels; its size as stored."""

    size: Size
    orientation: int


def header_of_content(content: bytes) -> JpegHeader:
    """Of a file in memory."""
    if faster.simplejpeg is not None and not _may_have_exif(content):
        height, width, *_ = faster.simplejpeg.decode_jpeg_header(content)
        return JpegHeader((height, width), UPRIGHT)
    with _opened(content) as image:
        return JpegHeader((image.height, image.width), orientation_of(image))


def decode_image(content: bytes, size: Size, wanted: Size) -> np.ndarray:
    """(H, W, 3) uint8 RGB, not turned.

    A file that is to become half as large or smaller is decoded at the smallest of 1/2, 1/4 and 1/8
    that is still as large as wanted and divides both sides (or else image and label would drift
    apart by up to a pixel).
    """
    divisor = _divisor(size, wanted)
    height, width = size[0] // divisor, size[1] // divisor
    if faster.simplejpeg is not None and _has_fast_colors(content):
        return faster.simplejpeg.decode_jpeg(content, "RGB", min_height=height, min_width=width)
    with _opened(content) as image:
        image.draft(None, (width, height))
        return np.asarray(image.convert("RGB"))


def _has_fast_colors(content: bytes) -> bool:
    return faster.simplejpeg.decode_jpeg_header(content)[2] not in ("CMYK", "YCCK")


def _divisor(size: Size, wanted: Size) -> int:
    for divisor in _DIVISORS:
        exact = size[0] % divisor == 0 and size[1] % divisor == 0
        if exact and size[0] >= divisor * wanted[0] and size[1] >= divisor * wanted[1]:
            return divisor
    return 1


def _may_have_exif(content: bytes) -> bool:
    """False only if nothing before the pixels can hold EXIF or XMP: then Pillow need not look."""
    place = 2
    while place + 4 <= len(content) and content[place] == _FILL:
        kind = content[place + 1]
        if kind == _SCAN:
            return False
        if kind == _APP1:
            return True
        place += 1 if kind == _FILL else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return True


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=["JPEG", "MPO"])
