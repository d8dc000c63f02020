"""Camera and canvas: from metres to pixels, color and label in one drawing call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Train ids of the 19 Cityscapes classes.
ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN = range(8)
VEGETATION, TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(8, 19)

# What a surface is made of: which texture the finish multiplies onto it.
PLAIN, ASPHALT, PAVING, BRICK, FOLIAGE, GRASS, PLASTER = range(7)

Color = tuple[float, float, float]
Ink = tuple[float, float, float, int]
Point = tuple[float, float]
"""Column and row, in sixteenths of a pixel unless said otherwise."""

SUBPIXEL_BITS = 4
UNIT = 1 << SUBPIXEL_BITS
"""Drawing coordinates are in sixteenths of a pixel, OpenCV's fixed point."""
SKY_DEPTH = 255
HALF_DEPTH_METRES = 40.0
"""The distance in the middle of the depth code's range."""


def shade(color: Color, factor: float) -> Color:
    """The color, brighter (factor > 1) or darker."""
    return (color[0] * factor, color[1] * factor, color[2] * factor)


def tint(color: Color, light: Color) -> Color:
    """The color under a colored light."""
    return (color[0] * light[0], color[1] * light[1], color[2] * light[2])


def mix(first: Color, second: Color, amount: float) -> Color:
    """`first` where amount is 0, `second` where it is 1."""
    keep = 1.0 - amount
    return (
        first[0] * keep + second[0] * amount,
        first[1] * keep + second[1] * amount,
        first[2] * keep + second[2] * amount,
    )


def depth_code(z: float) -> int:
    """Distance in metres as 0..254, finest near the camera."""
    return int(254 * z / (z + HALF_DEPTH_METRES))


def surface(class_id: int, z: float, texture: int = PLAIN) -> int:
    """The fourth channel: class, texture and depth in its bits."""
    return class_id | texture << 5 | depth_code(z) << 8


def depth_of_codes() -> np.ndarray:
    """(256,) float32 metres of every depth code; the sky's is 0, haze is painted into it."""
    fraction = np.arange(255, dtype=np.float32) / 254
    metres = HALF_DEPTH_METRES * fraction / np.maximum(1 - fraction, 1e-3)
    return np.append(metres, np.float32(0)).astype(np.float32)


@dataclass(frozen=True)
class Camera:
    """A pinhole above the road: x to the right, y up from the ground, z ahead, in metres."""

    focal: float
    """Pixels."""
    height: float
    """Metres above the ground."""
    centre: float
    """Column of the vanishing point."""
    horizon: float
    """Row of the horizon."""
    bend: float
    """Curvature of the street in 1/m; positive bends to the right."""

    def scale(self, z: float) -> float:
        """Pixels per metre at distance z."""
        return self.focal / z

    def project(self, x: float, y: float, z: float) -> Point:
        """Where a point is drawn; the street's bend moves it sideways with the square of z."""
        scale = UNIT * self.focal / z
        u = UNIT * self.centre + (x + 0.5 * self.bend * z * z) * scale
        return (u, UNIT * self.horizon + (self.height - y) * scale)

    def project_all(
        self, x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray
    ) -> np.ndarray:
        """Arrays of metres that broadcast to one shape (...) -> (..., 2) drawing coordinates."""
        scale = UNIT * self.focal / z
        u = UNIT * self.centre + (x + 0.5 * self.bend * z * z) * scale
        v = UNIT * self.horizon + (self.height - y) * scale
        points = np.empty((*np.broadcast_shapes(u.shape, v.shape), 2))
        points[..., 0] = u
        points[..., 1] = v
        return points


@dataclass(frozen=True)
class Lamp:
    """Something that shines, in pixels; hidden where the canvas shows another surface."""

    column: float
    row: float
    radius: float
    color: Color
    surface: int


class Canvas:
    """Color and surface of every pixel in one array.

    The fourth channel holds class, texture and depth in its bits, so every shape is rasterised
    once for the image and the label: they cannot disagree. Nothing is anti-aliased; colors may
    exceed 255 until the image is finished.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.pixels = np.zeros((*size, 4), np.uint16)
        self.lamps: list[Lamp] = []

    def ink(self, color: Color, class_id: int, z: float, texture: int = PLAIN) -> Ink:
        """What a drawing call writes: a color and the surface it belongs to."""
        return (*color, surface(class_id, z, texture))

    def polygon(self, points: Sequence[Point] | np.ndarray, ink: Ink) -> None:
        """Fill a simple polygon."""
        cv2.fillPoly(self.pixels, [np.array(points, np.int32)], ink, cv2.LINE_8, SUBPIXEL_BITS)

    def convex(self, points: Sequence[Point] | np.ndarray, ink: Ink) -> None:
        """Fill a convex polygon; several times faster than any polygon."""
        cv2.fillConvexPoly(self.pixels, np.array(points, np.int32), ink, cv2.LINE_8, SUBPIXEL_BITS)

    def polygons(self, points: np.ndarray, ink: Ink) -> None:
        """Fill (N, K, 2) polygons that do not overlap."""
        if len(points):
            cv2.fillPoly(self.pixels, list(points.astype(np.int32)), ink, cv2.LINE_8, SUBPIXEL_BITS)

    def disc(self, centre: Point, radii: Point, ink: Ink) -> None:
        """Fill an upright ellipse."""
        middle = (int(centre[0]), int(centre[1]))
        axes = (max(int(radii[0]), 1), max(int(radii[1]), 1))
        cv2.ellipse(
            self.pixels, middle, axes, 0, 0, 360, ink, cv2.FILLED, cv2.LINE_8, SUBPIXEL_BITS
        )

    def limb(self, points: Sequence[Point] | np.ndarray, width: float, ink: Ink) -> None:
        """Draw a thick polyline with round ends."""
        thickness = max(1, round(width / UNIT))
        line = [np.array(points, np.int32)]
        cv2.polylines(self.pixels, line, False, ink, thickness, cv2.LINE_8, SUBPIXEL_BITS)

    def shine(self, place: Point, radius: float, color: Color, surface: int) -> None:
        """Remember a lamp on a surface; the finish gives it a halo where the look has lamps on."""
        self.lamps.append(Lamp(place[0] / UNIT, place[1] / UNIT, radius / UNIT, color, surface))

    @property
    def label(self) -> np.ndarray:
        """(H, W) uint8 train ids."""
        return (self.pixels[..., 3] & 31).astype(np.uint8)

    def layers(self) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Red, green and blue (H, W) uint16; textures and depth codes, (H, W) uint8."""
        planes: list[np.ndarray] = [np.asarray(plane) for plane in cv2.split(self.pixels)]
        surfaces = planes.pop()
        textures = (surfaces >> 5 & 7).astype(np.uint8)
        return planes, textures, (surfaces >> 8).astype(np.uint8)


class Stamp:
    """Draws in metres on an upright plane at one distance: figures, signs, two-wheelers.

    Args:
        origin: where the plane's ground point is drawn.
        scale: sixteenths of a pixel per metre.
        turn: foreshortening of the horizontal axis, negative to mirror.
    """

    def __init__(
        self, canvas: Canvas, origin: Point, scale: float, class_id: int, z: float, turn: float = 1
    ) -> None:
        self.canvas = canvas
        self.origin = origin
        self.scale = scale
        self.turn = turn
        self.z = z
        self.surface = surface(class_id, z)

    @property
    def detail(self) -> float:
        """Pixels per metre: small parts are left out where it is small."""
        return self.scale / UNIT

    def as_class(self, class_id: int) -> Stamp:
        """The same plane for another class."""
        return Stamp(self.canvas, self.origin, self.scale, class_id, self.z, self.turn)

    def at(self, x: float, y: float) -> Point:
        """Where a point of the plane is drawn."""
        return (self.origin[0] + x * self.scale * self.turn, self.origin[1] - y * self.scale)

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self.canvas.polygon(self._place(points), (*color, self.surface))

    def convex(self, points: Sequence[Point], color: Color) -> None:
        """Fill a convex polygon."""
        self.canvas.convex(self._place(points), (*color, self.surface))

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Fill a rectangle."""
        self.convex(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), color)

    def disc(self, x: float, y: float, radii: Point, color: Color, texture: int = PLAIN) -> None:
        """Fill an ellipse; its width is foreshortened with the plane."""
        scaled = (radii[0] * self.scale * abs(self.turn), radii[1] * self.scale)
        self.canvas.disc(self.at(x, y), scaled, (*color, self.surface | texture << 5))

    def limb(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a thick polyline; its thickness is not foreshortened."""
        ink = (*color, self.surface)
        self.canvas.limb(self._place(points), width * self.scale, ink)

    def _place(self, points: Sequence[Point]) -> list[Point]:
        (u, v), up = self.origin, self.scale
        across = up * self.turn
        return [(u + x * across, v - y * up) for x, y in points]
