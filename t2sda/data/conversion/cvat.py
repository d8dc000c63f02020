"""CVAT for images 1.1: one XML file (https://docs.cvat.ai/docs/manual/advanced/xml_format/)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from t2sda.data.conversion.annotations import (
    MAX_BYTES,
    AnnotatedImage,
    Annotations,
    Shape,
    number,
    size_of,
    text,
    understood,
)
from t2sda.data.conversion.regions import Ellipse, Polygon, Region, Runs, rectangle
from t2sda.errors import UserError
from t2sda.files import read_small_file

WHAT = "file of 'CVAT for images 1.1'"
WITHOUT_AREA = ("polyline", "points", "skeleton", "cuboid", "tag")


def read_cvat(path: Path) -> Annotations:
    """Images, labels in the order of the task, and shapes from the lowest to the highest z.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is none of CVAT, or of a video.
    """
    root = _parsed(path)
    if root.tag != "annotations" or root.find("track") is not None:
        raise UserError(
            f"{path}: is no {WHAT}, which has <image> in <annotations>; export the task as that"
        )
    passed_over: Counter[str] = Counter()
    images = []
    for entry in root.iter("image"):
        with understood(f"{path}: image {entry.get('name')}", WHAT):
            shapes = []
            for item in sorted(entry, key=lambda item: number(item.get("z_order", "0"))):
                if item.tag in WITHOUT_AREA:
                    passed_over[f"shapes of kind {item.tag}, which cover no area"] += 1
                else:
                    shapes.append(Shape(text(item.get("label")), _region(item)))
            name = text(entry.get("name"))
            size = size_of(entry.get("height"), entry.get("width"))
            images.append(AnnotatedImage(name, size, tuple(shapes)))
    labels = (label.findtext("name") or "" for label in root.findall("./meta//label"))
    return Annotations(images, tuple(dict.fromkeys(filter(None, labels))), passed_over)


def _parsed(path: Path) -> ElementTree.Element:
    content = read_small_file(path, MAX_BYTES)
    if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
        raise UserError(f"{path}: declares types or entities of XML, which CVAT does not; refused")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"{path}: is no XML ({error}); export the task as CVAT for images"
        ) from None


def _region(item: ElementTree.Element) -> Region:
    """Raises ValueError for what is none."""
    if item.tag == "polygon":
        pairs = (item.get("points") or "").split(";")
        return Polygon([[number(part) for part in pair.split(",")] for pair in pairs])
    if item.tag == "mask":
        sides = [int(item.get(key) or "") for key in ("left", "top", "width", "height")]
        lengths = [int(part) for part in (item.get("rle") or "").split(",")]
        return Runs(lengths, by_columns=False, box=(sides[0], sides[1], sides[2], sides[3]))
    degrees = number(item.get("rotation", "0"))
    if item.tag == "box":
        left, top, right, bottom = (number(item.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
        center = ((left + right) / 2, (top + bottom) / 2)
        return rectangle(left, top, right - left, bottom - top, degrees, center)
    if item.tag == "ellipse":
        x, y, radius_x, radius_y = (number(item.get(key)) for key in ("cx", "cy", "rx", "ry"))
        return Ellipse(x, y, radius_x, radius_y, degrees)
    raise ValueError(f"a shape of the unknown kind <{item.tag}>")
