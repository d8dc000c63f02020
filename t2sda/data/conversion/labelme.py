"""LabelMe: one JSON file an image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from t2sda.data.conversion.regions import Bitmap, Ellipse, Polygon, Region, as_points, rectangle
from t2sda.errors import MissingFileError
from t2sda.files import is_folder

WHAT = "LabelMe file"
WITHOUT_AREA = ("line", "linestrip", "point", "points")


def read_labelme(path: Path) -> Annotations:
    """The JSON files of a folder and those below it, or a single one.

    Raises:
        MissingFileError: if there are none.
        UserError: if one is none of LabelMe.
    """
    files = sorted(path.rglob("*.json")) if is_folder(path) else [path]
    if not files:
        raise MissingFileError(f"{path}: holds no .json file; name the folder that LabelMe writes")
    result = Annotations()
    for file in files:
        result.images.append(_image(file, result.passed_over))
    return result


def _image(path: Path, passed_over: Counter[str]) -> AnnotatedImage:
    content = read_json(path, WHAT)
    with understood(str(path), WHAT):
        shapes = []
        for entry in content["shapes"]:
            kind = entry.get("shape_type") or "polygon"
            if kind in WITHOUT_AREA:
                passed_over[f"shapes of kind {kind}, which cover no area"] += 1
            else:
                shapes.append(Shape(text(entry["label"]), _region(kind, entry)))
        name = text(content["imagePath"]).replace("\\", "/")
        size = size_of(content["imageHeight"], content["imageWidth"])
        return AnnotatedImage(name, size, tuple(shapes))


def _region(kind: str, entry: Mapping[str, Any]) -> Region:
    """Raises ValueError for what is none."""
    points = as_points(entry["points"])
    if kind in ("polygon", "oriented_rectangle"):
        return Polygon(points.tolist())
    (x, y), (other_x, other_y) = points.tolist()
    if kind == "rectangle":
        left, right, top, bottom = *sorted((x, other_x)), *sorted((y, other_y))
        return rectangle(left, top, right - left, bottom - top, 0.0, (left, top))
    if kind == "circle":
        radius = math.hypot(number(other_x - x), number(other_y - y))
        return Ellipse(x, y, radius, radius)
    if kind == "mask":
        content = base64.b64decode(text(entry["mask"]), validate=True)
        return Bitmap(content, int(x), int(y))
    raise ValueError(f"a shape of the unknown kind '{kind}'")
