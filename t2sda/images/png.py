"""PNG: every chunk checked, then decoded without those that are not needed.

OpenCV and Pillow pass over wrong checksums and a missing end in some files, and Pillow refuses
files with long texts: so chunks are checked here, and decoders get pixels alone.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from t2sda.images import faster
from t2sda.images.files import read_at
from t2sda.images.orientation import UPRIGHT, orientation_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # color types

_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_ANCILLARY = 0x20  # bit of a kind's first letter: who does not know it may pass over it
_CHUNK_START, _CHECKSUM = struct.Struct(">I4s"), struct.Struct(">I")
_WITH_EXIF = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_KEYWORDS = (b"Raw profile type", b"XML:com.adobe.xmp")
_OF_TEXT_READ = 1 << 16
"""Bytes of EXIF or of a text; orientation stands in the beginning."""


class PngHeader(NamedTuple):
    """What a PNG says besides its pixels.

    Attributes:
        size: (height, width) as stored.
        bits: of a channel.
        color_type: 0, 2, 3, 4 or 6.
        alpha: whether it has an alpha channel, or a color stands for transparency.
        orientation: of EXIF.
        bare: whether it holds pixels alone.
    """

    size: tuple[int, int]
    bits: int
    color_type: int
    alpha: bool
    orientation: int
    bare: bool


def header_of_content(content: bytes) -> PngHeader:
    """Of a file in memory; raises ValueError if its chunks are damaged or cut short."""
    return _header(_checked_chunks(content), lambda place, count: content[place : place + count])


def header_of_file(descriptor: int) -> PngHeader:
    """Of an open file; of the pixels nothing is read."""
    return _header(_chunks_of_file(descriptor), partial(read_at, descriptor))


def decode_image(content: bytes, header: PngHeader) -> np.ndarray:
    """(H, W, 3) uint8 RGB, as stored: not turned. Checksums must have been checked."""
    needed = content if header.bare else _needed(content)
    if header.bits < 8 or header.color_type == PALETTE:
        with Image.open(io.BytesIO(needed), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    if faster.imagecodecs is not None:
        return _rgb(faster.imagecodecs.png_decode(needed))
    return _by_opencv(needed, cv2.IMREAD_COLOR_RGB)


def decode_samples(content: bytes, header: PngHeader) -> np.ndarray:
    """(H, W) or (H, W, channels), the numbers of the file: palette indices, 16 bits; not turned."""
    needed = content if header.bare else _needed(content)
    if header.bits < 8 or header.color_type == PALETTE:
        with Image.open(io.BytesIO(needed), formats=["PNG"]) as image:
            if header.color_type == PALETTE:
                return np.asarray(image)
            # Pillow spreads 0 to 2^bits - 1 over 0 to 255.
            return np.asarray(image.convert("L")) // (255 // ((1 << header.bits) - 1))
    if faster.imagecodecs is not None:
        return faster.imagecodecs.png_decode(needed)
    samples = _by_opencv(needed, cv2.IMREAD_UNCHANGED)
    if samples.ndim == 2:
        return samples
    code = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(samples, code)


def _rgb(samples: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 1 to 4), uint8 or uint16 -> (H, W, 3) uint8."""
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] < 3:  # grey, perhaps with alpha
        return np.repeat(samples[..., :1], 3, axis=2)
    return np.ascontiguousarray(samples[..., :3])


def _by_opencv(content: bytes, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("its pixels are damaged")
    return image


_Chunks = Iterator[tuple[bytes, int, int]]
"""Kind, place and length of each chunk's data, up to the end of the image."""


def _checked_chunks(content: bytes) -> _Chunks:
    """Every chunk; the data of each is compared with its checksum."""
    view, place, kind = memoryview(content), len(SIGNATURE), b""
    try:
        while kind != b"IEND":
            length, kind = _CHUNK_START.unpack_from(content, place)
            end = place + 8 + length
            (checksum,) = _CHECKSUM.unpack_from(content, end)
            if zlib.crc32(view[place + 4 : end]) != checksum:
                raise ValueError(f"the checksum of a chunk {kind.decode('latin-1')!r} is wrong")
            yield kind, place + 8, length
            place = end + 4
    except struct.error:
        raise ValueError("the file is cut short") from None


def _chunks_of_file(descriptor: int) -> _Chunks:
    """Every chunk; of its data nothing is read."""
    place, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        start = read_at(descriptor, place, _CHUNK_START.size)
        if len(start) < _CHUNK_START.size:
            raise ValueError("the file is cut short")
        length, kind = _CHUNK_START.unpack(start)
        yield kind, place + 8, length
        place += 12 + length


def _header(chunks: _Chunks, read: Callable[[int, int], bytes]) -> PngHeader:
    """Of the chunks; `read(place, count)` gives bytes of the file."""
    kind, place, length = next(chunks)
    if kind != b"IHDR" or length != 13:
        raise ValueError("a PNG without header")
    width, height, bits, color_type = struct.unpack(">IIBB", read(place, 10))
    alpha, bare, with_exif = color_type in (GREY_ALPHA, RGBA), True, []
    for kind, place, length in chunks:
        if kind in _NEEDED:
            continue
        bare = False
        if kind == b"tRNS":
            alpha = True
        elif kind in _WITH_EXIF:
            data = read(place, min(length, _OF_TEXT_READ))
            if kind == b"eXIf" or data.startswith(_KEYWORDS):
                with_exif.append((kind, data))
        elif kind[0] & _ANCILLARY == 0:
            raise ValueError(f"an unknown chunk {kind.decode('latin-1')!r}")
    orientation = _orientation(with_exif) if with_exif else UPRIGHT
    return PngHeader((height, width), bits, color_type, alpha, orientation, bare)


def _orientation(with_exif: list[tuple[bytes, bytes]]) -> int:
    """As Pillow finds it in the chunks of an image of one pixel."""
    pixel = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))]
    end = [(b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    content = SIGNATURE + b"".join(_chunk(*item) for item in (*pixel, *with_exif, *end))
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return orientation_of(image)
    except Exception:  # a damaged text is no reason to do without the image
        return UPRIGHT


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def _needed(content: bytes) -> bytes:
    """The file without texts, profiles, transparency and animation."""
    view = memoryview(content)
    kept = [
        view[place - 8 : place + length + 4]
        for kind, place, length in _checked_chunks(content)
        if kind in _NEEDED
    ]
    return b"".join([SIGNATURE, *kept])
