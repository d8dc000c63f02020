"""How label files say which class a pixel has: ids, colours, SYNTHIA's 16-bit channels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from t2sda.data.decode import UnreadableFileError, read_image, read_label
from t2sda.errors import MissingFileError

LabelReader = Callable[[Path], np.ndarray]
"""File -> raw label: ids (H, W) uint8 or uint16, or colours (H, W, 3) uint8."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_first_channel(path: Path) -> np.ndarray:
    """SYNTHIA's labels, 16-bit PNGs of three channels -> ids (H, W) uint16, the red channel.

    OpenCV decodes: Pillow reads such a file with 8 bits, in which every id is 0.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged or of another format.
    """
    content = _bytes_of(path)
    _check_png(content, path)
    label = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if label is None:
        raise UnreadableFileError(f"{path}: cannot be decoded; replace or remove the file")
    if label.ndim != 3 or label.shape[2] != 3 or label.dtype != np.uint16:
        raise UnreadableFileError(
            f"{path}: found shape {label.shape} and type {label.dtype}; SYNTHIA's labels in "
            f"GT/LABELS are 16-bit PNGs of three channels: name that folder in the dataset's "
            f"`labels`, or use label_format 'ids' for labels that were converted"
        )
    return np.ascontiguousarray(label[..., 2])  # OpenCV's order is blue, green, red


LABEL_FORMATS: dict[str, LabelReader] = {
    "ids": read_label,
    "colours": read_image,
    "first_channel": read_first_channel,
}
"""Readers by the name that `DatasetSpec.label_format` gives."""


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be read ({error.strerror})") from None


def _check_png(content: bytes, path: Path) -> None:
    """Refuse a PNG that is cut short or damaged: OpenCV would return the part it could read."""
    if not (content.startswith(_PNG_SIGNATURE) and _chunks_are_whole(content)):
        raise UnreadableFileError(
            f"{path}: not a whole PNG (cut short or damaged); replace or remove the file"
        )


def _chunks_are_whole(content: bytes) -> bool:
    """Whether every chunk up to the end mark is there and has its checksum."""
    place = len(_PNG_SIGNATURE)
    while len(content) >= place + 12:
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if content[end - 4 : end] != zlib.crc32(content[place + 4 : end - 4]).to_bytes(4):
            return False
        if kind == b"IEND":
            return True
        place = end
    return False
