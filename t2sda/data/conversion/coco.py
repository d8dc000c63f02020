"""COCO's instances: one JSON file (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2sda.data.conversion.annotations import (
    AnnotatedImage,
    Annotations,
    Shape,
    read_json,
    size_of,
    text,
    understood,
)
from t2sda.data.conversion.regions import Polygon, Region, Runs

WHAT = "COCO annotation file"


def read_coco(path: Path) -> Annotations:
    """Images, categories in the order of their ids, and annotations with an outline.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is none of COCO.
    """
    content = read_json(path, WHAT)
    passed_over: Counter[str] = Counter()
    with understood(str(path), WHAT):
        names = {int(entry["id"]): text(entry["name"]) for entry in content["categories"]}
        shapes: dict[Any, list[Shape]] = defaultdict(list)
        known = {entry["id"] for entry in content["images"]}
        annotations = list(content["annotations"])
    for index, entry in enumerate(annotations):
        with understood(f"{path}: annotation {index}", WHAT):
            if entry["image_id"] not in known:
                raise ValueError(f"image_id {entry['image_id']} is that of no image")
            found = regions_of(entry.get("segmentation"))
            if not found:
                passed_over["annotations without an outline"] += 1
            category = int(entry["category_id"])
            if category not in names:
                raise ValueError(f"category_id {category} is that of no category")
            shapes[entry["image_id"]] += [Shape(names[category], region) for region in found]
    with understood(str(path), WHAT):
        images = [
            AnnotatedImage(
                text(entry["file_name"]),
                size_of(entry["height"], entry["width"]),
                tuple(shapes[entry["id"]]),
            )
            for entry in content["images"]
        ]
    return Annotations(images, tuple(names[key] for key in sorted(names)), passed_over)


def regions_of(segmentation: Any) -> list[Region]:
    """Polygons, or run lengths down the columns, as a list or packed into text."""
    if isinstance(segmentation, Mapping):
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        lengths = unpacked(counts) if isinstance(counts, str) else [int(run) for run in counts]
        return [Runs(lengths, by_columns=True, box=(0, 0, width, height))]
    return [Polygon(points) for points in segmentation or [] if len(points) >= 6]


def unpacked(counts: str) -> list[int]:
    """COCO's text of run lengths, as pycocotools packs it (maskApi.c, rleToString).

    Five bits a character, offset by 48, the lowest first; the sixth says that more follow. From
    the fourth run on it is the difference to the run before the last. Raises ValueError if it is
    cut short or holds other characters.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} in run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that are cut short")
    return lengths
