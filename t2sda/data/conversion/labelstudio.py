"""Label Studio's own JSON: a list of tasks (https://labelstud.io/guide/export)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from t2sda.data.conversion.annotations import (
    AnnotatedImage,
    Annotations,
    Shape,
    number,
    read_json,
    size_of,
    text,
    understood,
)
from t2sda.data.conversion.regions import Ellipse, Polygon, Region, Size, rectangle
from t2sda.errors import UserError
from t2sda.images.finding import IMAGE_SUFFIXES

WHAT = "JSON export of Label Studio"
LABEL_KEYS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels", "labels")


@dataclass(frozen=True)
class Brush:
    """What was painted: the alpha channel of an RGBA image, packed as `@thi.ng/rle-pack` does it.

    Attributes:
        packed: bytes.
    """

    packed: Sequence[int]

    def mask(self, size: Size) -> np.ndarray:
        """Where alpha is not 0; raises ValueError if it is of another size, or cut short."""
        values = unpacked(self.packed, limit=size[0] * size[1] * 4)
        if len(values) != size[0] * size[1] * 4:
            raise ValueError(f"a brush of {len(values)} numbers for {size[0]}x{size[1]} RGBA")
        return values.reshape(*size, 4)[..., 3] > 0


def unpacked(packed: Sequence[int], limit: int) -> np.ndarray:
    """Numbers of 8 bits, packed in runs of variable length, the highest bit first.

    32 bits say how many there are, 5 how many bits one has (less one), four times 4 how many bits
    a run's length may have. Then, for each run, a bit says whether one number repeats, two which of
    the four lengths follows, then come that length (less one), and the number, or the numbers.
    """
    bits = np.unpackbits(np.asarray(packed, dtype=np.uint8)).astype("S1").tobytes().decode()
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("a brush that is cut short")
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    if total > limit or word > 8:
        raise ValueError(f"a brush of {total} numbers of {word} bits")
    lengths = [read(4) + 1 for _ in range(4)]
    values = np.zeros(total, dtype=np.uint8)
    done = 0
    while done < total:
        repeats = read(1)
        count = min(read(lengths[read(2)]) + 1, total - done)
        values[done : done + count] = read(word) if repeats else [read(word) for _ in range(count)]
        done += count
    return values


def read_labelstudio(path: Path) -> Annotations:
    """Tasks and the shapes of their first annotation that was not cancelled.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is none of Label Studio.
    """
    content = read_json(path, WHAT)
    if not isinstance(content, list):
        raise UserError(f"{path}: is no {WHAT}, which is a list of tasks; export it as JSON")
    result = Annotations()
    for index, task in enumerate(content):
        with understood(f"{path}: task {index}", WHAT):
            image = _image(task, result.passed_over)
        if image is not None:
            result.images.append(image)
    return result


def _image(task: Mapping[str, Any], passed_over: Counter[str]) -> AnnotatedImage | None:
    name = image_name(task["data"])
    done = [item for item in task["annotations"] if not item.get("was_cancelled")]
    if len(done) > 1:
        passed_over["further annotations of a task"] += len(done) - 1
    shapes: list[Shape] = []
    size: Size | None = None
    for entry in done[0]["result"] if done else ():
        labels = _labels(entry)
        if not labels:
            passed_over["results without a label or an area"] += 1
            continue
        size = size_of(entry["original_height"], entry["original_width"])
        shapes.append(Shape(text(labels[0]), _region(entry["value"], size)))
    if size is None:
        passed_over["tasks without a shape"] += 1
        return None
    return AnnotatedImage(name, size, tuple(shapes))


def _labels(entry: Mapping[str, Any]) -> list[Any]:
    value = entry.get("value") or {}
    found = [value[key] for key in LABEL_KEYS if value.get(key)]
    return found[0] if found and any(key in value for key in ("points", "rle", "x")) else []


def _region(value: Mapping[str, Any], size: Size) -> Region:
    """Lengths are in percent of the image; raises ValueError for what is no shape."""
    if "rle" in value:
        return Brush(value["rle"])
    height, width = size[0] / 100, size[1] / 100
    if "points" in value:
        return Polygon([[number(x) * width, number(y) * height] for x, y in value["points"]])
    x, y, degrees = number(value["x"]), number(value["y"]), number(value.get("rotation", 0))
    if "radiusX" in value:
        radii = number(value["radiusX"]) * width, number(value["radiusY"]) * height
        return Ellipse(x * width, y * height, *radii, degrees)
    left, top = x * width, y * height  # turned around this corner
    sides = number(value["width"]) * width, number(value["height"]) * height
    return rectangle(left, top, *sides, degrees, (left, top))


def image_name(data: Mapping[str, Any]) -> str:
    """The path in a task's address of its image: uploaded, a local file, or of a cloud."""
    for address in data.values():
        if not isinstance(address, str):
            continue
        parts = urlsplit(address)
        local = parse_qs(parts.query).get("d")
        name = local[0] if local else unquote(parts.path)
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            return text(name.lstrip("/"))
    raise ValueError(f"no image in the task's data: {sorted(map(str, data))}")
