"""The pixels of an annotated shape: polygons, ellipses, run lengths, bitmaps.

A pixel belongs to an outline that its center lies in: x and y grow to the right and downwards, and
pixel (row, column) has its center at (column + 0.5, row + 0.5), as the formats have it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]
"""(height, width)."""


class Region(Protocol):
    """What a shape covers."""

    def mask(self, size: Size) -> np.ndarray:
        """(H, W) bool of an image of that size; raises ValueError for what cannot be drawn."""


@dataclass(frozen=True)
class Polygon:
    """A closed outline; what it encloses an even number of times is outside.

    Attributes:
        points: x and y of each corner, in pixels.
    """

    points: Sequence[Sequence[float]]

    def mask(self, size: Size) -> np.ndarray:
        """Every row is filled between its crossings with the outline."""
        height, width = size
        flips = np.zeros((height, width + 1), dtype=bool)
        corners = as_points(self.points)
        for (x, y), (next_x, next_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            first, last = np.clip(np.ceil(np.sort([y, next_y]) - 0.5), 0, height).astype(int)
            rows = np.arange(first, last)
            if rows.size:
                crossings = x + (rows + 0.5 - y) * (next_x - x) / (next_y - y)
                flips[rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)] ^= True
        return np.logical_xor.accumulate(flips[:, :width], axis=1)


@dataclass(frozen=True)
class DrawnPolygon:
    """An outline as Pillow draws it, with the pixels that it touches: that of Cityscapes' scripts.

    Attributes:
        points: as of a Polygon.
    """

    points: Sequence[Sequence[float]]

    def mask(self, size: Size) -> np.ndarray:
        """By `ImageDraw.polygon`."""
        canvas = Image.new("1", size[::-1])
        corners = [(float(x), float(y)) for x, y in as_points(self.points)]
        if len(corners) > 1:
            ImageDraw.Draw(canvas).polygon(corners, fill=1)
        return np.asarray(canvas)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse around (x, y), turned clockwise by `degrees`."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    degrees: float = 0.0

    def mask(self, size: Size) -> np.ndarray:
        """By its equation."""
        numbers = (self.x, self.y, self.radius_x, self.radius_y, self.degrees)
        if not all(map(math.isfinite, numbers)) or min(self.radius_x, self.radius_y) <= 0:
            return np.zeros(size, dtype=bool)
        rows, columns = np.ogrid[: size[0], : size[1]]
        right, down = columns + 0.5 - self.x, rows + 0.5 - self.y
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        along, across = cos * right + sin * down, cos * down - sin * right
        return (along / self.radius_x) ** 2 + (across / self.radius_y) ** 2 <= 1


@dataclass(frozen=True)
class Runs:
    """Lengths of runs that are by turns outside and inside, beginning outside.

    Attributes:
        lengths: their sum is the number of pixels of the box.
        by_columns: whether they go down the columns, as COCO's; else along the rows, as CVAT's.
        box: left, top, width and height; None: the whole image.
    """

    lengths: Sequence[int]
    by_columns: bool
    box: tuple[int, int, int, int] | None = None

    def mask(self, size: Size) -> np.ndarray:
        """The runs, put into their box."""
        left, top, width, height = self.box or (0, 0, size[1], size[0])
        check_inside((left, top), (height, width), size)
        lengths = np.asarray(self.lengths, dtype=np.int64)
        if (lengths < 0).any() or lengths.sum() != width * height:
            raise ValueError(f"runs of {lengths.sum()} pixels for {height}x{width}")
        inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        shape = (width, height) if self.by_columns else (height, width)
        own = inside.reshape(shape)
        return placed(own.T if self.by_columns else own, (left, top), size)


@dataclass(frozen=True)
class Bitmap:
    """An image file whose pixels that are not 0 are inside; its left upper pixel is at (x, y)."""

    content: bytes
    left: int
    top: int

    def mask(self, size: Size) -> np.ndarray:
        """Decoded and put into its place."""
        with Image.open(io.BytesIO(self.content), formats=["PNG"]) as image:
            check_inside((self.left, self.top), (image.height, image.width), size)
            return placed(np.asarray(image.convert("L")) > 0, (self.left, self.top), size)


def placed(mask: np.ndarray, left_top: tuple[int, int], size: Size) -> np.ndarray:
    """A mask within an image, at (left, top); `check_inside` was asked."""
    (left, top), (height, width) = left_top, mask.shape
    whole = np.zeros(size, dtype=bool)
    whole[top : top + height, left : left + width] = mask
    return whole


def check_inside(left_top: tuple[int, int], own: Size, size: Size) -> None:
    """Raise ValueError unless a mask of size `own` at (left, top) lies in an image of `size`."""
    (left, top), (height, width) = left_top, own
    inside = left >= 0 <= top and top + height <= size[0] and left + width <= size[1]
    if not inside or min(own) < 0:
        raise ValueError(f"a mask of {height}x{width} at ({left}, {top}) leaves its image")


def as_points(values: object) -> np.ndarray:
    """Pairs, or numbers x, y, x, y, … -> (N, 2) float64; raises ValueError if they are none."""
    wrong = ValueError("corners are pairs of finite numbers")
    try:
        points = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):  # rows of different lengths, text
        raise wrong from None
    if points.size % 2 or not np.isfinite(points).all():
        raise wrong
    return np.clip(points.reshape(-1, 2), -1e6, 1e6)


def rectangle(
    left: float, top: float, width: float, height: float, degrees: float, pivot: tuple[float, float]
) -> Polygon:
    """A rectangle, turned clockwise by `degrees` around `pivot`, (x, y)."""
    right, bottom = left + width, top + height
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = (corners - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return Polygon(turned.tolist())
