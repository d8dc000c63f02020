"""How label files say which class a pixel has: ids, colors, one channel of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from t2sda.errors import UnreadableFileError
from t2sda.images import read_image, read_label, read_samples

LabelReader = Callable[[Path], np.ndarray]
"""File -> raw label: ids (H, W) uint8 or uint16, or colors (H, W, 3) uint8."""


def read_first_channel(path: Path) -> np.ndarray:
    """SYNTHIA's labels, 16-bit PNGs of three channels -> ids (H, W) uint16, the red channel.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged or of another format.
    """
    label = read_samples(path)
    if label.ndim != 3 or label.shape[2] != 3 or label.dtype != np.uint16:
        raise UnreadableFileError(
            f"{path}: found shape {label.shape} and type {label.dtype}; SYNTHIA's labels in "
            f"GT/LABELS are 16-bit PNGs of three channels: name that folder in the dataset's "
            f"`labels`, or use label_format 'ids' for labels that were converted"
        )
    return np.ascontiguousarray(label[..., 0])


def read_red(path: Path) -> np.ndarray:
    """The red channel of an RGB or RGBA mask -> ids (H, W); raises as `read_first_channel`.

    CARLA's semantic cameras save the tag there
    (https://carla.readthedocs.io/en/latest/ref_sensors/#semantic-segmentation-camera).
    """
    return _channel(path, 0)


def read_green(path: Path) -> np.ndarray:
    """The same of the green channel."""
    return _channel(path, 1)


def read_blue(path: Path) -> np.ndarray:
    """The same of the blue channel."""
    return _channel(path, 2)


def read_alpha(path: Path) -> np.ndarray:
    """The same of the alpha channel."""
    return _channel(path, 3)


def _channel(path: Path, index: int) -> np.ndarray:
    """(H, W) uint8 or uint16, one of the three or four channels that a file stores."""
    label = read_samples(path)
    name, least = ("red", "green", "blue", "alpha")[index], max(index + 1, 3)
    if label.ndim != 3 or label.shape[2] < least or label.dtype not in (np.uint8, np.uint16):
        raise UnreadableFileError(
            f"{path}: found shape {label.shape} and type {label.dtype}; label_format {name} takes "
            f"its ids from one of {least} or more channels of 8 or 16 bits: use label_format ids "
            f"for a label of one channel, another one of red, green, blue, alpha for other channels"
        )
    return np.ascontiguousarray(label[..., index])


LABEL_FORMATS: dict[str, LabelReader] = {
    "ids": read_label,
    "colors": read_image,
    "red": read_red,
    "green": read_green,
    "blue": read_blue,
    "alpha": read_alpha,
    "first_channel": read_first_channel,
}
"""Readers by the name that `DatasetSpec.label_format` gives."""
