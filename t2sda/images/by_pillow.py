"""What Pillow opens, by the rules that all readers here follow."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from t2sda.images.orientation import orientation_of, turned_upright

FORMATS = (
    *("PNG", "JPEG", "MPO", "TIFF", "BMP", "DIB", "WEBP", "AVIF", "HEIF", "GIF", "JPEG2000"),
    *("PPM", "PCX", "QOI", "SGI", "TGA"),
)
"""Those that hold pixels alone: of others Pillow knows, EPS would run a program."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_UNSIGNED, _SIGNED = 1, 2
_WHITE_IS_ZERO = 0
_PGM_HEADER = re.compile(rb"P[25](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)")


def open_content(content: bytes) -> Image.Image:
    """The image in a file's bytes; its pixels are decoded when they are asked for."""
    try:
        return Image.open(io.BytesIO(content), formats=known_formats())
    except Image.UnidentifiedImageError:
        if content.startswith(_TIFF):
            raise ValueError(
                "a kind of TIFF that Pillow does not know; save it with 8 or 16 bits, or as PNG"
            ) from None
        raise


def known_formats() -> list[str]:
    """Of FORMATS, those that this Pillow can open."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def rgb_of(image: Image.Image) -> np.ndarray:
    """Image -> (H, W, 3) uint8 RGB, upright, by the table in `t2sda.images`.

    Raises:
        ValueError: if nothing says which value is white.
    """
    image.load()  # a TIFF is turned by Pillow then
    return turned_upright(_rgb(image), orientation_of(image))


def samples_of(image: Image.Image, content: bytes) -> np.ndarray:
    """The numbers that a file stores, (H, W) or (H, W, channels), upright.

    Args:
        image: opened.
        content: of its file.
    """
    image.load()
    samples = np.asarray(image)
    if samples.dtype == bool:
        samples = samples.astype(np.uint8)
    if samples.ndim == 2 and image.format == "TIFF":
        samples = _as_stored_in_tiff(samples, image)
    elif samples.ndim == 2 and (header := _PGM_HEADER.match(content)):
        white = 65535 if image.mode == "I" else 255
        samples = (samples.astype(np.int64) * int(header[1]) + white // 2) // white
    return turned_upright(samples, orientation_of(image))


def has_alpha(image: Image.Image) -> bool:
    """Whether parts of it are transparent, or may be."""
    return image.has_transparency_data or image.mode in ("RGBa", "La")


def bits_of(image: Image.Image) -> int:
    """Of a channel as stored; nothing is decoded."""
    if image.format == "TIFF":
        return image.tag_v2.get(_BITS, (1,))[0]  # type: ignore[attr-defined]
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):
        return 16
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format in ("PPM", "PNG")):
        return _repeated((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        raise ValueError("signed and 32-bit integers have no defined white; save 8 or 16 bits")
    if image.mode == "F":
        return _repeated(_from_float(np.asarray(image)))
    if has_alpha(image):
        image = image.convert("RGBA")  # not at once: Pillow would warn of what is dropped
    return np.asarray(image.convert("RGB"))


def _from_float(grey: np.ndarray) -> np.ndarray:
    if not (grey.min() >= 0 and grey.max() <= 1):  # also if one is NaN
        raise ValueError(
            f"its floating-point values go from {grey.min():g} to {grey.max():g}; 0 is black and 1 "
            f"is white: scale them, or save it with 8 or 16 bits"
        )
    return (grey * 255 + 0.5).astype(np.uint8)


def _repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def _as_stored_in_tiff(samples: np.ndarray, image: Image.Image) -> np.ndarray:
    """Undo what Pillow does to TIFFs of one channel so that they can be shown."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(_BITS, (1,))[0]
    sample_format = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    if image.mode == "I" and bits == 32 and sample_format == _UNSIGNED:
        return samples.view(np.uint32)
    if image.mode in ("1", "L"):
        white = (1 << bits) - 1
        if image.mode == "L":
            samples = samples // (255 // white)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            samples = white - samples
        if sample_format == _SIGNED:
            samples = samples.view(np.int8)
    return samples
