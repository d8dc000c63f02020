"""Image and label files to arrays, by the fastest decoder that reports a damaged file.

`benchmarks/decoders.py` measures the candidates on pictures of 2 megapixels:

- JPEG images: simplejpeg. The fastest by a little, and the strictest: it refuses files that libjpeg
  only warns of, where OpenCV and Pillow return a picture. Decodes at 1/2, 1/4 or 1/8 of the size.
- PNG images: imagecodecs (libpng on zlib-ng), 1.4 times as fast as OpenCV and 1.7 times as Pillow.
  libspng and pyspng are as fast, but accept files without their end or with wrong checksums.
- PNG labels of 8 or 16 bits: imagecodecs as well, which keeps 16 bits in three channels.
- PNG labels with a palette: Pillow, the only one to give the indices.
- Everything else (TIFF, WebP, CMYK JPEG, PNG of 1 to 4 bits): Pillow.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from t2sda.data.transforms import AS_STORED, Resize, resize_image
from t2sda.errors import MissingFileError, UserError
from t2sda.resources import is_out_of_files, is_out_of_memory

MAX_PIXELS = 1 << 26
"""8192 x 8192; a file of more is taken for a decompression bomb: refused before it is decoded."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">8s4x4sIIBB")  # signature, IHDR, width, height, bits, colour type
_JPEG_START = b"\xff\xd8\xff"
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types
_DCT_DIVISORS = (8, 4, 2)  # others (3/8, 5/8, ...) have no fast code and take longer than 1/1


class UnreadableFileError(UserError):
    """A file that exists but is not the picture it should be."""


class _PngHeader(NamedTuple):
    height: int
    width: int
    bits: int
    colour_type: int


def read_image(path: Path, resize: Resize = AS_STORED) -> np.ndarray:
    """Image file -> (H, W, 3) uint8 RGB, resized.

    Grey becomes three equal channels, an alpha channel is dropped, of 16 bits the upper 8 are kept.
    A JPEG that is to become half as large or smaller is decoded at the smallest of 1/2, 1/4 and 1/8
    that is still as large as wanted and divides both sides (or else image and label would drift
    apart by up to a pixel), then resized like any other (docs/fidelity.md, A6).

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, not an image, or larger than MAX_PIXELS.
    """
    content = _content(path)
    with _complaints_about(path):
        if content.startswith(_PNG_SIGNATURE):
            image = _rgb(_decoded_png(content, path))
        elif content.startswith(_JPEG_START):
            return _decoded_jpeg(content, path, resize)
        else:
            image = _decoded_by_pillow(content, path, "RGB")
    return resize_image(image, resize.size_for(image.shape[:2]))


def read_label(path: Path) -> np.ndarray:
    """Label file -> (H, W) uint8 or uint16 raw ids (indices of a palette PNG).

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, not an image, larger than MAX_PIXELS, or holds
            colours where ids are due.
    """
    label = read_samples(path)
    if label.ndim != 2 or label.dtype == bool:
        raise UnreadableFileError(
            f"{path}: a label has one channel of class ids, this one has shape {label.shape} "
            f"and type {label.dtype}; name the folder of the id images in the dataset's `labels`"
        )
    return label if label.dtype in (np.uint8, np.uint16) else label.astype(np.uint16)


def read_samples(path: Path) -> np.ndarray:
    """The numbers of a file as it holds them, (H, W) or (H, W, channels): palette indices, 16 bits.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, not an image, or larger than MAX_PIXELS.
    """
    content = _content(path)
    with _complaints_about(path):
        if content.startswith(_PNG_SIGNATURE):
            header = _png_header(content)
            if header.bits >= 8 and header.colour_type != _PALETTE:
                return _decoded_png(content, path)
            if header.colour_type == _GREY:  # Pillow spreads 0 to 2^bits - 1 over 0 to 255
                return _decoded_by_pillow(content, path, "L") // (255 // ((1 << header.bits) - 1))
        return _decoded_by_pillow(content, path)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header of a file; nothing is decoded.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if the header is not that of an image, or larger than MAX_PIXELS.
    """
    with _complaints_about(path), path.open("rb") as file:
        start = file.read(_PNG_HEADER.size)
        if start.startswith(_PNG_SIGNATURE):
            header = _png_header(start)
            size = header.height, header.width
        else:
            with Image.open(file) as image:
                size = image.height, image.width
    _check_not_a_bomb(size, path)
    return size


def _decoded_png(content: bytes, path: Path) -> np.ndarray:
    header = _png_header(content)
    _check_not_a_bomb((header.height, header.width), path)
    samples = imagecodecs.png_decode(content)
    if samples.ndim == 3 and header.colour_type == _GREY:  # a colour was declared transparent
        return samples[..., 0]
    return samples[..., :3] if header.colour_type == _RGB else samples


def _decoded_jpeg(content: bytes, path: Path, resize: Resize) -> np.ndarray:
    height, width, colour_space, _ = simplejpeg.decode_jpeg_header(content)
    _check_not_a_bomb((height, width), path)
    wanted = resize.size_for((height, width))
    if colour_space in ("CMYK", "YCCK"):
        return resize_image(_decoded_by_pillow(content, path, "RGB"), wanted)
    divisor = _dct_divisor((height, width), wanted)
    image = simplejpeg.decode_jpeg(
        content, "RGB", min_height=height // divisor, min_width=width // divisor
    )
    return resize_image(image, wanted)


def _dct_divisor(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    for divisor in _DCT_DIVISORS:
        exact = size[0] % divisor == 0 and size[1] % divisor == 0
        if exact and size[0] >= divisor * wanted[0] and size[1] >= divisor * wanted[1]:
            return divisor
    return 1


def _decoded_by_pillow(content: bytes, path: Path, mode: str | None = None) -> np.ndarray:
    """The picture in Pillow's `mode`; None: the one it has."""
    with Image.open(io.BytesIO(content)) as image:
        _check_not_a_bomb((image.height, image.width), path)
        image.load()
        if mode is None:
            return np.asarray(image)
        if image.mode.startswith("I;16"):  # Pillow's own conversion cuts at 255
            return _rgb(np.asarray(image).astype(np.uint16))
        return np.asarray(image.convert(mode))


def _rgb(samples: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 1 to 4), uint8 or uint16 -> (H, W, 3) uint8."""
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] < 3:  # grey, perhaps with alpha
        return np.repeat(samples[..., :1], 3, axis=2)
    return np.ascontiguousarray(samples[..., :3])


def _png_header(content: bytes) -> _PngHeader:
    if len(content) < _PNG_HEADER.size:
        raise ValueError("the header is cut short")
    _, kind, width, height, bits, colour_type = _PNG_HEADER.unpack_from(content)
    if kind != b"IHDR":
        raise ValueError("a PNG without header")
    return _PngHeader(height, width, bits, colour_type)


def _check_not_a_bomb(size: tuple[int, int], path: Path) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadableFileError(
            f"{path}: {size[0]}x{size[1]} (height x width) are more than the {MAX_PIXELS} pixels "
            f"that are decoded, which is how decompression bombs look; make the image smaller, or "
            f"remove the file"
        )


def _content(path: Path) -> bytes:
    with _complaints_about(path):
        content = path.read_bytes()
    if not content:
        raise UnreadableFileError(
            f"{path}: cannot be decoded (the file is empty); replace or remove the file"
        )
    return content


@contextmanager
def _complaints_about(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read and decoded names the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except Image.DecompressionBombError as error:
        raise UnreadableFileError(f"{path}: refused ({error}); make the image smaller") from None
    except Exception as error:  # damage makes decoders stumble with errors of any kind
        if is_out_of_files(error) or is_out_of_memory(error):
            raise
        raise UnreadableFileError(
            f"{path}: cannot be decoded ({error}); replace or remove the file"
        ) from None
