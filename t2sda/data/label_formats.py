"""How label files say which class a pixel has: ids, colors, SYNTHIA's 16-bit channels."""

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


LABEL_FORMATS: dict[str, LabelReader] = {
    "ids": read_label,
    "colors": read_image,
    "first_channel": read_first_channel,
}
"""Readers by the name that `DatasetSpec.label_format` gives."""
