"""A vehicle's box: a near face, the side that the camera sees, and a top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from t2sda.streets.canvas import UNIT, Color, Point, shade, surface, tint
from t2sda.streets.scene import Scene

RUBBER: Color = (26, 26, 28)
HEADLAMP: Color = (255, 246, 220)
TAIL_LAMP: Color = (226, 36, 32)
PLATE: Color = (232, 232, 222)
CIRCLE = [(math.cos(angle), math.sin(angle)) for angle in (math.pi / 6 * k for k in range(12))]


@dataclass(frozen=True)
class Body:
    """A vehicle's box in the street and the shape drawing in it; `width` etc. in metres.

    Faces are drawn in fractions of the box: across (-1 left .. 1 right), up in metres, along
    (0 near .. 1 far).
    """

    scene: Scene
    class_id: int
    x: float
    z: float
    width: float
    length: float
    oncoming: bool
    lit: bool
    """Its lamps are on, if the look has any on."""

    @cached_property
    def surface(self) -> int:
        """The canvas' fourth channel."""
        return surface(self.class_id, self.z)

    @cached_property
    def seen_side(self) -> float:
        """-1 where the left side is seen, +1 where the right side is."""
        return -1.0 if self.x > 0 else 1.0

    @cached_property
    def detail(self) -> float:
        """Pixels per metre at the near face: small parts are left out where it is small."""
        return self.scene.camera.scale(self.z)

    def project(self, across: float, up: float, along: float) -> Point:
        """Where a point of the box is drawn."""
        x = self.x + 0.5 * across * self.width
        return self.scene.camera.project(x, up, self.z + along * self.length)

    def fill(self, corners: Sequence[tuple[float, float, float]], color: Color) -> None:
        """Fill a polygon of (across, up, along) corners."""
        camera, half = self.scene.camera, 0.5 * self.width
        focal, centre, horizon = UNIT * camera.focal, UNIT * camera.centre, UNIT * camera.horizon
        points = []
        for across, up, along in corners:
            z = self.z + along * self.length
            scale = focal / z
            u = centre + (self.x + across * half + 0.5 * camera.bend * z * z) * scale
            points.append((u, horizon + (camera.height - up) * scale))
        ink = (*color, self.surface)
        if len(points) == 4:
            self.scene.canvas.convex(points, ink)
        else:
            self.scene.canvas.polygon(points, ink)

    def near(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Fill a rectangle of the near face."""
        self.fill(((x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)), color)

    def side(self, profile: Sequence[Point], color: Color, inset: float = 1) -> None:
        """Fill a polygon of (along, up) corners on the side that is seen."""
        across = self.seen_side * inset
        self.fill([(across, up, along) for along, up in profile], color)

    def wheel(self, along: float, radius: float) -> None:
        """A wheel with its rim, upright on the side that is seen."""
        parts = ((1.0, RUBBER), (0.58, (150, 150, 152)), (0.2, (70, 70, 72)))
        for size, color in parts[: 1 + (self.detail > 10) + (self.detail > 24)]:
            reach = size * radius / self.length
            rim = [(along + reach * c, radius * (1 + size * s)) for c, s in CIRCLE]
            lit = tint(color, self.scene.light.front)
            self.side(rim, lit, inset=1.01)

    def lamps(self, up: float, across: float, half: float) -> None:
        """Head or tail lamps on the near face."""
        scene, high = self.scene, 0.5 * half * self.width
        color = HEADLAMP if self.oncoming else TAIL_LAMP
        glowing = self.lit and scene.look.lamps > 0
        color = color if glowing else tint(shade(color, 0.8), scene.light.front)
        for sign in (-1, 1):
            middle = sign * across
            self.near(middle - half, up - high, middle + half, up + high, color)
            if glowing:
                radius = (0.22 if self.oncoming else 0.1) * UNIT * self.detail
                scene.canvas.shine(self.project(middle, up, 0), radius, color, self.surface)

    @property
    def side_light(self) -> Color:
        """Light on the side that is seen: that of the facades opposite."""
        return self.scene.light.facade(1 if self.seen_side < 0 else -1)


def paint_shell(body: Body, height: float, color: Color, low: float = 0.35) -> None:
    """Top, side and near face of a box, each in its own light."""
    light = body.scene.light
    top = ((-1, height, 0), (1, height, 0), (1, height, 1), (-1, height, 1))
    body.fill(top, shade(color, 1.1))
    body.side(((0, low), (1, low), (1, height), (0, height)), tint(color, body.side_light))
    body.near(-1, low, 1, height, tint(color, light.front))


def paint_band(body: Body, low: float, high: float, color: Color, start: float, end: float) -> None:
    """A stripe along the side that is seen."""
    body.side(((start, low), (end, low), (end, high), (start, high)), tint(color, body.side_light))


def paint_window_row(
    body: Body, low: float, high: float, count: int, glass: Color, start: float, end: float
) -> None:
    """Windows with posts between them along the side; none lit, most dark, some brighter."""
    step = (end - start) / count
    for index in range(count):
        along = start + step * index
        color = shade(glass, 1.0 + 0.25 * body.scene.chance())
        body.side(
            ((along, low), (along + 0.88 * step, low), (along + 0.88 * step, high), (along, high)),
            color,
        )
