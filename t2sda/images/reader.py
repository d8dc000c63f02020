"""Image and label files to arrays, by the fastest decoder that is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from t2sda.errors import UnreadableFileError
from t2sda.images import jpeg, png
from t2sda.images.by_pillow import (
    bits_of,
    has_alpha,
    known_formats,
    open_content,
    rgb_of,
    samples_of,
)
from t2sda.images.files import (
    check_pixels,
    check_regular_file,
    content_of,
    errors_name,
    read_at,
)
from t2sda.images.orientation import orientation_of, turned_upright, upright_size

Size = tuple[int, int]
"""(height, width)."""
LARGEST_ID = 65535


class Header(NamedTuple):
    """What a file says about its image before the pixels.

    Attributes:
        size: (height, width) of the image upright.
        orientation: of EXIF, 1 to 8; 1 where there is none.
        alpha: whether parts of it are transparent, or may be.
        bits: of a channel as stored.
    """

    size: Size
    orientation: int
    alpha: bool
    bits: int


def read_image(
    source: Path | bytes, size_for: Callable[[Size], Size] | None = None, name: str = "image"
) -> np.ndarray:
    """Image file -> (H, W, 3) uint8 RGB, upright, by the table in `t2sda.images`.

    Args:
        source: path, or the bytes of a file.
        size_for: what size an image of (height, width) is resized to; None: it stays as it is.
            A JPEG that becomes half as large or smaller is decoded smaller first, see
            `t2sda.images.jpeg.decode_image` and docs/fidelity.md, A6.
        name: of bytes, for messages.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, no image, has no defined white, or more than
            MAX_PIXELS.
        MemoryError: if it is larger than memory.
    """
    content, name = _content(source, name)
    with errors_name(name):
        if content.startswith(png.SIGNATURE):
            header = png.header_of_content(content)
            check_pixels(header.size, name)
            image = turned_upright(png.decode_image(content, header), header.orientation)
        elif content.startswith(jpeg.START):
            return _read_jpeg(content, size_for, name)
        else:
            with open_content(content) as opened:
                check_pixels((opened.height, opened.width), name)
                image = rgb_of(opened)
        return _resized(image, _wanted(size_for, image.shape[:2]))


def read_label(path: Path) -> np.ndarray:
    """Label file -> (H, W) uint8 or uint16 ids as the file stores them, upright.

    Of a palette image the indices are taken.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, no image, has more than MAX_PIXELS, colors where ids
            are due, or numbers that are no ids: fractions, NaN, negative, above 65535.
    """
    label = read_samples(path)
    if label.ndim != 2:
        raise UnreadableFileError(
            f"{path}: a label has one channel of class ids, this one has shape {label.shape} "
            f"and type {label.dtype}; name the folder of the id images in the dataset's `labels`, "
            f"or the channel that holds the ids in its `label_format`: red, green, blue or alpha"
        )
    if label.dtype in (np.uint8, np.uint16):
        return label
    _check_ids(label, path)
    return label.astype(np.uint16)


def read_samples(path: Path) -> np.ndarray:
    """The numbers that a file stores, (H, W) or (H, W, channels), upright.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is damaged, no image, or has more than MAX_PIXELS.
    """
    content = content_of(path)
    with errors_name(path):
        if content.startswith(png.SIGNATURE):
            header = png.header_of_content(content)
            check_pixels(header.size, path)
            return turned_upright(png.decode_samples(content, header), header.orientation)
        with open_content(content) as image:
            check_pixels((image.height, image.width), path)
            return samples_of(image, content)


def read_header(source: Path | bytes, name: str = "image") -> Header:
    """What a file says about its image; nothing is decoded.

    Args:
        source: path, or the bytes of a file.
        name: of bytes, for messages.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it does not begin like an image, or has more than MAX_PIXELS.
    """
    name = name if isinstance(source, bytes) else str(source)
    with errors_name(name):
        header = _of_bytes(source) if isinstance(source, bytes) else _of_file(source)
        check_pixels(header.size, name)
        return header


def _of_file(path: Path) -> Header:
    check_regular_file(path)
    with path.open("rb") as file:
        if read_at(file.fileno(), 0, len(png.SIGNATURE)) == png.SIGNATURE:
            return _of_png(png.header_of_file(file.fileno()))
        with Image.open(file, formats=known_formats()) as image:
            return _of_pillow(image)


def _of_bytes(content: bytes) -> Header:
    if content.startswith(png.SIGNATURE):
        return _of_png(png.header_of_content(content))
    with open_content(content) as image:
        return _of_pillow(image)


def _of_png(found: png.PngHeader) -> Header:
    size = upright_size(found.size, found.orientation)
    return Header(size, found.orientation, found.alpha, found.bits)


def _of_pillow(image: Image.Image) -> Header:
    orientation = orientation_of(image)
    size = image.height, image.width
    if image.format != "TIFF":  # which Pillow turns itself
        size = upright_size(size, orientation)
    return Header(size, orientation, has_alpha(image), bits_of(image))


def _content(source: Path | bytes, name: str) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        if not source:
            raise UnreadableFileError(f"{name}: cannot be decoded (no bytes); give a whole file")
        return source, name
    return content_of(source), str(source)


def _read_jpeg(content: bytes, size_for: Callable[[Size], Size] | None, name: str) -> np.ndarray:
    stored, orientation = jpeg.header_of_content(content)
    check_pixels(stored, name)
    wanted = _wanted(size_for, upright_size(stored, orientation))
    image = jpeg.decode_image(content, stored, upright_size(wanted, orientation))
    return _resized(turned_upright(image, orientation), wanted)


def _wanted(size_for: Callable[[Size], Size] | None, size: tuple[int, ...]) -> Size:
    return (size[0], size[1]) if size_for is None else size_for((size[0], size[1]))


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def _check_ids(label: np.ndarray, path: Path) -> None:
    """Raise UnreadableFileError for the first number that is no id, with its value and place."""
    with np.errstate(invalid="ignore"):
        wrong = ~((label >= 0) & (label <= LARGEST_ID) & (label == np.floor(label)))  # NaN is too
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UnreadableFileError(
            f"{path}: holds {label[row, column].item()!r} at row {row}, column {column}; class ids "
            f"are whole numbers from 0 to {LARGEST_ID}: save the label again with such"
        )
