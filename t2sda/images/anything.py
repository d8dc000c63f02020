"""Whatever holds an image, to (H, W, 3) uint8 RGB: what `predict` takes."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from PIL import Image

from t2sda.errors import UserError
from t2sda.images.by_pillow import rgb_of
from t2sda.images.files import check_pixels, errors_name
from t2sda.images.reader import read_image


class TensorLike(Protocol):
    """A tensor of PyTorch, which need not be installed."""

    def detach(self) -> Any:
        """The numbers alone."""


ImageSource = (
    np.ndarray
    | str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | Image.Image
    | io.IOBase
    | BinaryIO
    | TensorLike
)
"""What `as_image` takes."""

TAKEN = (
    "an image is a path, a uint8 RGB array (height, width, 3), a uint8 tensor (3, height, width), "
    "a PIL image, or an encoded file as bytes or an open binary file"
)


def as_image(source: Any) -> np.ndarray:
    """An image of any kind -> (H, W, 3) uint8 RGB, upright, by the table in `t2sda.images`.

    Args:
        source: an ImageSource. Arrays and tensors are taken as they are; of PIL images
            EXIF orientation is applied, as of files.

    Raises:
        MissingFileError: if it names a file that is not there.
        UserError: if it is none of these, or cannot be read.
    """
    if isinstance(source, np.ndarray):
        check_image(source)
        return source
    if isinstance(source, Image.Image):
        with errors_name("PIL image"):
            check_pixels((source.height, source.width), "PIL image")
            return rgb_of(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return read_image(bytes(source), name="image given as bytes")
    if _is_tensor(source):
        return _from_tensor(source)
    if _is_file(source):
        return _from_file(source)
    if isinstance(source, (str, os.PathLike)):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(source)):
            raise UserError(f"{source}: addresses are not fetched; download the file first")
        return read_image(Path(source))
    raise UserError(f"cannot take a {_type_name(source)} as an image; {TAKEN}")


def is_one_image(source: Any) -> bool:
    """Whether it is one image, and not a sequence of them."""
    kinds = (np.ndarray, Image.Image, bytes, bytearray, memoryview, str, os.PathLike)
    return isinstance(source, kinds) or _is_tensor(source) or _is_file(source)


def check_image(image: np.ndarray) -> None:
    """Raise UserError unless it is (H, W, 3) uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"found an array of {image.dtype} with shape {image.shape}; {TAKEN}")


def _from_tensor(tensor: Any) -> np.ndarray:
    array = tensor.detach().cpu()
    if str(array.dtype) != "torch.uint8" or array.ndim != 3 or len(array) != 3 or not array.numel():
        shape = tuple(tensor.shape)
        raise UserError(f"found a tensor of {tensor.dtype} with shape {shape}; {TAKEN}")
    return np.ascontiguousarray(array.permute(1, 2, 0).numpy())


def _from_file(file: Any) -> np.ndarray:
    name = str(getattr(file, "name", "open file"))
    with errors_name(name):
        content = file.read()
    if not isinstance(content, bytes):
        raise UserError(f"{name}: open it in binary mode, 'rb'")
    return read_image(content, name=name)


def _is_tensor(source: Any) -> bool:
    """Of PyTorch, without importing it."""
    return any(
        kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in type(source).__mro__
    )


def _is_file(source: Any) -> bool:
    return callable(getattr(source, "read", None))


def _type_name(source: Any) -> str:
    return f"{type(source).__module__}.{type(source).__qualname__}".removeprefix("builtins.")
