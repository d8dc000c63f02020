"""Image and label files to arrays.

Pillow decodes, because it reports a truncated file where OpenCV returns the part it could read,
and because it gives the indices of a palette PNG where OpenCV expands the colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from t2sda.errors import MissingFileError, UserError


class UnreadableFileError(UserError):
    """A file that exists but is not the picture it should be."""


def read_image(path: Path) -> np.ndarray:
    """Image file -> (H, W, 3) uint8 RGB.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged or not an image.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


def read_label(path: Path) -> np.ndarray:
    """Label file -> (H, W) uint8 or uint16 raw ids (indices of a palette PNG).

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, not an image, or holds colours where ids are due.
    """
    with _opened(path) as image:
        label = np.asarray(image)
    if label.ndim != 2 or label.dtype == bool:
        raise UnreadableFileError(
            f"{path}: a label has one channel of class ids, this one has shape {label.shape} "
            f"and type {label.dtype}; name the folder of the id images in the dataset's `labels`"
        )
    return label if label.dtype in (np.uint8, np.uint16) else label.astype(np.uint16)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The decoded Pillow image of a file; what goes wrong while decoding names the file."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFileError(
            f"{path}: cannot be decoded ({error}); replace or remove the file"
        ) from None
    with image:
        yield image
