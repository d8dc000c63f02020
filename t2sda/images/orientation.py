"""EXIF orientation: which way up an image is meant to be seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

UPRIGHT = 1
_TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, 1),
}


def orientation_of(image: Image.Image) -> int:
    """1 to 8, as EXIF has it; 1 where there is none, or none that makes sense."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # damaged EXIF is no reason to do without the image
        return UPRIGHT
    return found if found in _TURNED else UPRIGHT


def turned_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as it is meant to be seen."""
    return image if orientation == UPRIGHT else np.ascontiguousarray(_TURNED[orientation](image))


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) after `turned_upright`; applied twice it is the stored size again."""
    return size if orientation < 5 else size[::-1]
