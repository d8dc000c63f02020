"""What an annotation file says, whatever tool wrote it."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2sda.data.conversion.regions import Region, Size
from t2sda.errors import UserError
from t2sda.files import read_small_file

MAX_BYTES = 1 << 31
"""Of an annotation file: COCO's largest has a quarter of it."""


@dataclass(frozen=True)
class Shape:
    """A region and the name of its class."""

    label: str
    region: Region


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its shapes; where they overlap, the later one counts.

    Attributes:
        name: of the image's file, as the annotations have it; with folders, or without.
        size: (height, width) as the annotations have it.
        shapes: from the lowest to the highest.
        split: to which it belongs; empty: the set has no splits.
    """

    name: str
    size: Size
    shapes: tuple[Shape, ...]
    split: str = ""


@dataclass
class Annotations:
    """All images of a file or folder.

    Attributes:
        images: in a fixed order.
        class_names: as the file lists them; empty: it lists none.
        passed_over: what covers no area, by kind, and how often.
    """

    images: list[AnnotatedImage] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def labels(self) -> Counter[str]:
        """How many shapes have which label."""
        return Counter(shape.label for image in self.images for shape in image.shapes)


def read_json(path: Path, what: str) -> Any:
    """A JSON file.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is none; `what` says what it should be.
    """
    try:
        return json.loads(read_small_file(path, MAX_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no {what} ({error}); export it again as such") from None


@contextlib.contextmanager
def understood(where: str, what: str) -> Iterator[None]:
    """Content that is not as the format has it becomes a UserError of the file."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{where}: is no {what}: {error} is missing; export it again") from None
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: is no {what} ({error}); export it again") from None
    except (TypeError, IndexError, AttributeError):
        raise UserError(
            f"{where}: is no {what}: a list, a text or a number stands where the format has "
            f"something else; export it again"
        ) from None


def size_of(height: object, width: object) -> Size:
    """(height, width) of numbers or of text; raises ValueError if they are no sizes."""
    size = int(str(height)), int(str(width))
    if min(size) < 1:
        raise ValueError(f"an image of {size[0]}x{size[1]}")
    return size


def number(value: object) -> float:
    """A finite number, or text of one; raises ValueError if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value} is not finite")
    return found


def text(value: object) -> str:
    """Text that is not empty; raises ValueError if it is none."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is no name")
    return value
