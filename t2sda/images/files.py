"""The bytes of image files, and errors that name the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from t2sda.errors import MissingFileError, UnreadableFileError, UserError
from t2sda.resources import is_out_of_files, is_out_of_memory

MAX_PIXELS = 178_956_970
"""What Pillow takes at most; a file of more is taken for a decompression bomb."""
MAX_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Of a file: as many pixels with four channels of 16 bits, and a header."""


class TooManyPixelsError(UnreadableFileError):
    """An image of more than MAX_PIXELS, or with a longer side than a format can have."""


def content_of(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableFileError: if it is empty, too long for an image, or a folder, pipe or device,
            which may never end.
    """
    with errors_name(path):
        check_regular_file(path)
        return path.read_bytes()


def check_regular_file(path: Path) -> None:
    """Raise what `content_of` does; the file is not opened, since opening a pipe may wait."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError(
            f"{path}: is {_kind(status.st_mode)}, not a file; give an image file"
        )
    if status.st_size == 0:
        raise UnreadableFileError(
            f"{path}: cannot be decoded (the file is empty); replace or remove the file"
        )
    if status.st_size > MAX_BYTES:
        raise UnreadableFileError(
            f"{path}: {status.st_size} bytes are more than any image of {MAX_PIXELS} pixels has; "
            f"remove the file"
        )


def check_pixels(size: tuple[int, int], name: object) -> None:
    """Raise UnreadableFileError if (height, width) are more than MAX_PIXELS, or nothing.

    Of too many it is a TooManyPixelsError.
    """
    if 0 in size:
        raise UnreadableFileError(f"{name}: has no pixels; replace or remove the file")
    if size[0] * size[1] > MAX_PIXELS:
        raise TooManyPixelsError(
            f"{name}: {size[0]}x{size[1]} (height x width) are more than the {MAX_PIXELS} pixels "
            f"that are decoded, which is how decompression bombs look; make the image smaller, or "
            f"remove the file"
        )


@contextmanager
def errors_name(name: object) -> Iterator[None]:
    """Whatever goes wrong while a file is read and decoded names the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise MissingFileError(f"{name}: no such file") from None
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"{name}: refused ({error}); make the image smaller") from None
    except Exception as error:  # decoders fail with errors of any kind
        if is_out_of_files(error) or is_out_of_memory(error):  # no fault of the file
            raise
        raise UnreadableFileError(
            f"{name}: cannot be decoded ({_cause(error)}); replace or remove the file"
        ) from None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe (FIFO)"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _cause(error: BaseException) -> str:
    """The reason without the path, which the message begins with already."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is of no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_at(descriptor: int, place: int, count: int) -> bytes:
    """Bytes of an open file from `place` on; fewer at its end."""
    return os.pread(descriptor, count, place)
