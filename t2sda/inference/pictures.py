"""Pictures as cameras, phones and scanners leave them, to RGB arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from t2sda.errors import MissingFileError, UnreadableFileError, UserError

PICTURE_SUFFIXES = frozenset(
    (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What is taken from a folder; a file that is named itself may have any ending."""

_SIXTEEN_BIT_MODES = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))
_WHITE_16_BIT = 65535
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation of EXIF."""


def read_picture(path: Path) -> np.ndarray:
    """A picture file of any kind -> (H, W, 3) uint8 RGB, the way up it is meant to be seen.

    The camera's orientation is applied where its EXIF can be read, grey, palette and CMYK become
    RGB, transparent parts white, and 16-bit grey is scaled to 8 bits. Of an animation the first
    frame is taken.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, no picture, or has no defined white.
        MemoryError: if it is larger than memory.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            return _as_rgb(_upright(opened))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # damage makes Pillow stumble with errors of any kind
        raise UnreadableFileError(
            f"{path}: not a picture that can be decoded ({_cause(error)})"
        ) from None


def check_picture(image: np.ndarray) -> None:
    """Raise UserError unless it is (H, W, 3) uint8."""
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return
    raise UserError(
        f"a picture is an array of uint8 RGB with shape (height, width, 3); this one is "
        f"{image.dtype} with shape {image.shape}"
    )


def _upright(image: Image.Image) -> Image.Image:
    """Without ImageOps.exif_transpose, which writes EXIF anew and fails where that is damaged."""
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF is no reason to do without the picture
        return image
    return image if method is None else image.transpose(method)


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in _SIXTEEN_BIT_MODES:
        return _from_16_bit_grey(np.asarray(image))
    if image.mode == "F":
        raise ValueError("floating-point grey has no defined white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _from_16_bit_grey(grey: np.ndarray) -> np.ndarray:
    if grey.min() < 0 or grey.max() > _WHITE_16_BIT:
        raise ValueError("32-bit grey has no defined white; save it with 8 or 16 bits")
    scaled = (grey.astype(np.uint32) * 255 + _WHITE_16_BIT // 2) // _WHITE_16_BIT
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)


def _cause(error: BaseException) -> str:
    """The reason without the path, which the message begins with already."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is of no known picture format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
