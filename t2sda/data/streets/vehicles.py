"""Cars, trucks, buses and trams: boxes with a near face, the side the camera sees, and a top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from t2sda.data.streets.canvas import (
    BUS,
    CAR,
    TRAIN,
    TRUCK,
    UNIT,
    Colour,
    Point,
    mix,
    shade,
    surface,
    tint,
)
from t2sda.data.streets.looks import pick, pick_jittered
from t2sda.data.streets.scene import Scene

RUBBER: Colour = (26, 26, 28)
HEADLAMP: Colour = (255, 246, 220)
TAIL_LAMP: Colour = (226, 36, 32)
PLATE: Colour = (232, 232, 222)
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

    def fill(self, corners: Sequence[tuple[float, float, float]], colour: Colour) -> None:
        """Fill a polygon of (across, up, along) corners."""
        camera, half = self.scene.camera, 0.5 * self.width
        focal, centre, horizon = UNIT * camera.focal, UNIT * camera.centre, UNIT * camera.horizon
        points = []
        for across, up, along in corners:
            z = self.z + along * self.length
            scale = focal / z
            u = centre + (self.x + across * half + 0.5 * camera.bend * z * z) * scale
            points.append((u, horizon + (camera.height - up) * scale))
        ink = (*colour, self.surface)
        if len(points) == 4:
            self.scene.canvas.convex(points, ink)
        else:
            self.scene.canvas.polygon(points, ink)

    def near(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle of the near face."""
        self.fill(((x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)), colour)

    def side(self, profile: Sequence[Point], colour: Colour, inset: float = 1) -> None:
        """Fill a polygon of (along, up) corners on the side that is seen."""
        across = self.seen_side * inset
        self.fill([(across, up, along) for along, up in profile], colour)

    def wheel(self, along: float, radius: float) -> None:
        """A wheel with its rim, upright on the side that is seen."""
        parts = ((1.0, RUBBER), (0.58, (150, 150, 152)), (0.2, (70, 70, 72)))
        for size, colour in parts[: 1 + (self.detail > 10) + (self.detail > 24)]:
            reach = size * radius / self.length
            rim = [(along + reach * c, radius * (1 + size * s)) for c, s in CIRCLE]
            lit = tint(colour, self.scene.light.front)
            self.side(rim, lit, inset=1.01)

    def lamps(self, up: float, across: float, half: float) -> None:
        """Head or tail lamps on the near face."""
        scene, high = self.scene, 0.5 * half * self.width
        colour = HEADLAMP if self.oncoming else TAIL_LAMP
        glowing = self.lit and scene.look.lamps > 0
        colour = colour if glowing else tint(shade(colour, 0.8), scene.light.front)
        for sign in (-1, 1):
            middle = sign * across
            self.near(middle - half, up - high, middle + half, up + high, colour)
            if glowing:
                radius = (0.22 if self.oncoming else 0.1) * UNIT * self.detail
                scene.canvas.shine(self.project(middle, up, 0), radius, colour, self.z)

    @property
    def side_light(self) -> Colour:
        """Light on the side that is seen: that of the facades opposite."""
        return self.scene.light.facade(1 if self.seen_side < 0 else -1)


def paint_car(scene: Scene, x: float, z: float, oncoming: bool, parked: bool = False) -> None:
    """A hatchback, saloon, estate or van, seen from behind or, oncoming, from the front."""
    profile = PROFILES[int(scene.rng.integers(len(PROFILES)))]
    width = 1.78 + 0.3 * (profile.roof_height > 1.8)
    body = Body(scene, CAR, x, z, width, profile.length, oncoming, lit=not parked)
    paint = pick_jittered(scene.rng, scene.look.paint, 0.15)
    front, side = tint(paint, scene.light.front), tint(paint, body.side_light)
    glass = tint(pick(scene.rng, scene.look.glass), scene.light.front)
    shape = profile.mirrored() if oncoming else profile
    if body.detail > 8:
        _paint_car_underside(body)
    _paint_car_side(body, shape, side, glass)
    _paint_car_near(body, shape, front, glass)
    body.lamps(0.5 * (shape.near_height + 0.42), 0.78, 0.17)


@dataclass(frozen=True)
class Profile:
    """A car's outline from its tail (0) to its nose (1); heights in metres, the rest fractions."""

    length: float
    belt: float
    roof_height: float
    near_height: float
    """Height of the boot's (or bonnet's) near edge."""
    far_height: float
    cabin: tuple[float, float, float, float]
    """Where the cabin starts at the belt, reaches the roof, leaves it, ends at the belt."""

    def mirrored(self) -> Profile:
        """The same car seen from its other end."""
        start, rise, fall, end = self.cabin
        return Profile(
            self.length,
            self.belt,
            self.roof_height,
            self.far_height,
            self.near_height,
            (1 - end, 1 - fall, 1 - rise, 1 - start),
        )


PROFILES = (
    Profile(3.9, 0.92, 1.47, 0.92, 0.72, (0.01, 0.10, 0.52, 0.74)),  # hatchback
    Profile(4.5, 0.92, 1.44, 0.90, 0.74, (0.14, 0.30, 0.56, 0.74)),  # saloon
    Profile(4.6, 0.94, 1.50, 0.94, 0.76, (0.01, 0.07, 0.56, 0.75)),  # estate
    Profile(4.6, 1.02, 1.72, 1.02, 0.90, (0.01, 0.06, 0.58, 0.77)),  # off-roader
    Profile(4.9, 1.12, 1.98, 1.12, 0.95, (0.00, 0.03, 0.74, 0.90)),  # van
)
TAPER = 0.80
"""Width of the roof as a share of the body's."""
SILL = 0.24


def _paint_car_underside(body: Body) -> None:
    """Darkness between the wheels, and the tyres as far as the bumper shows them."""
    body.side(((0.05, 0.1), (0.95, 0.1), (0.95, 0.4), (0.05, 0.4)), (16, 16, 18), 0.95)
    body.near(-0.9, 0.12, 0.9, 0.4, (18, 18, 20))
    for across in (-0.86, 0.64):
        body.near(across, 0.0, across + 0.22, 0.4, RUBBER)


def _paint_car_side(body: Body, shape: Profile, paint: Colour, glass: Colour) -> None:
    start, rise, fall, end = shape.cabin
    lower = (
        (0.0, SILL + 0.06),
        (1.0, SILL + 0.06),
        (1.0, shape.far_height - 0.12),
        (0.97, shape.far_height),
        (end, shape.belt),
        (start, shape.belt),
        (0.0, shape.near_height),
    )
    body.side(lower, paint)
    body.side(
        ((0.02, SILL), (0.98, SILL), (0.98, SILL + 0.16), (0.02, SILL + 0.16)), shade(paint, 0.6)
    )
    for along in (0.19, 0.81):
        body.wheel(along, 0.33)
    _paint_tops(body, shape, shade(paint, 1.12))
    across, roof = body.seen_side * 0.98, body.seen_side * TAPER
    top = shape.roof_height
    cabin = (
        (across, shape.belt, start),
        (roof, top, rise),
        (roof, top, fall),
        (across, shape.belt, end),
    )
    body.fill(cabin, paint)
    _paint_side_windows(body, shape, glass)


def _paint_tops(body: Body, shape: Profile, paint: Colour) -> None:
    """Bonnet, boot and roof as far as the camera looks down on them."""
    start, rise, fall, end = shape.cabin
    belt, top, far = shape.belt, shape.roof_height, shape.far_height
    body.fill(((-0.96, belt, end), (0.96, belt, end), (0.96, far, 1), (-0.96, far, 1)), paint)
    near = shape.near_height
    body.fill(((-0.98, near, 0), (0.98, near, 0), (0.98, belt, start), (-0.98, belt, start)), paint)
    roof = ((-TAPER, top, rise), (TAPER, top, rise), (TAPER, top, fall), (-TAPER, top, fall))
    body.fill(roof, paint)


def _paint_side_windows(body: Body, shape: Profile, glass: Colour) -> None:
    start, rise, fall, end = shape.cabin
    low, high = shape.belt + 0.03, shape.roof_height - 0.08
    span = high - low
    lean = (0.98 - TAPER) * 0.85

    def pane(bottom: float, top: float, top_end: float, bottom_end: float) -> None:
        inner, outer = body.seen_side * 0.975, body.seen_side * (0.975 - lean)
        body.fill(
            (
                (inner, low, bottom),
                (outer, high, top),
                (outer, high, top_end),
                (inner, low, bottom_end),
            ),
            glass,
        )

    if span * body.detail < 5:
        return
    middle = 0.5 * (rise + fall) + 0.02
    pane(start + 0.05, rise + 0.03, middle - 0.02, middle - 0.02)
    pane(middle + 0.01, middle + 0.01, fall - 0.02, end - 0.05)


def _paint_car_near(body: Body, shape: Profile, paint: Colour, glass: Colour) -> None:
    """The end towards the camera: body, bumper, window, plate and grille."""
    start, rise, _, _ = shape.cabin
    near, belt, top = shape.near_height, shape.belt, shape.roof_height
    frame = ((-0.98, belt, start), (0.98, belt, start), (TAPER, top, rise), (-TAPER, top, rise))
    body.fill(frame, shade(paint, 0.95))
    mirror_glass = mix(glass, (150, 170, 186), 0.25)
    rear_low, rear_high = belt + 0.04, top - 0.09
    window = (
        (-0.86, rear_low, start),
        (0.86, rear_low, start),
        (TAPER - 0.08, rear_high, rise),
        (-TAPER + 0.08, rear_high, rise),
    )
    body.fill(window, mirror_glass)
    outline = ((-0.97, 0.3), (0.97, 0.3), (1.0, 0.5), (0.98, near), (-0.98, near), (-1.0, 0.5))
    body.fill([(across, up, 0) for across, up in outline], paint)
    if body.detail < 8:
        return
    sheen = (
        (-0.5, rear_low, start),
        (0.0, rear_low, start),
        (0.3, rear_high, rise),
        (-0.1, rear_high, rise),
    )
    body.fill(sheen, shade(mirror_glass, 1.18))
    body.near(-0.96, 0.28, 0.96, 0.48, shade(paint, 0.7))
    if body.oncoming:
        body.near(-0.5, 0.5, 0.5, 0.5 + 0.4 * (near - 0.5), (30, 30, 32))
    body.near(-0.28, 0.36, 0.28, 0.48, tint(PLATE, body.scene.light.front))


# Boxes on wheels


def _paint_shell(body: Body, height: float, colour: Colour, low: float = 0.35) -> None:
    """Top, side and near face of a box, each in its own light."""
    light = body.scene.light
    top = ((-1, height, 0), (1, height, 0), (1, height, 1), (-1, height, 1))
    body.fill(top, shade(colour, 1.1))
    body.side(((0, low), (1, low), (1, height), (0, height)), tint(colour, body.side_light))
    body.near(-1, low, 1, height, tint(colour, light.front))


def _paint_band(
    body: Body, low: float, high: float, colour: Colour, start: float, end: float
) -> None:
    """A stripe along the side that is seen."""
    body.side(((start, low), (end, low), (end, high), (start, high)), tint(colour, body.side_light))


def _paint_window_row(
    body: Body, low: float, high: float, count: int, glass: Colour, start: float, end: float
) -> None:
    """Windows with posts between them along the side; none lit, most dark, some brighter."""
    step = (end - start) / count
    for index in range(count):
        along = start + step * index
        colour = shade(glass, 1.0 + 0.25 * body.scene.chance())
        body.side(
            ((along, low), (along + 0.88 * step, low), (along + 0.88 * step, high), (along, high)),
            colour,
        )


def paint_truck(scene: Scene, x: float, z: float, oncoming: bool) -> None:
    """A lorry: a cab and a tall load box, or a flat bed with a tarpaulin."""
    height, length = scene.uniform(3.0, 3.7), scene.uniform(7, 10)
    body = Body(scene, TRUCK, x, z, 2.45, length, oncoming, lit=True)
    cab = pick_jittered(scene.rng, scene.look.paint)
    load = pick_jittered(scene.rng, scene.look.paint)
    load = mix(load, (222, 220, 212), 0.6) if scene.chance() < 0.5 else load
    body.side(((0.0, 0.4), (1.0, 0.4), (1.0, 1.1), (0.0, 1.1)), (34, 34, 36), 0.9)
    body.near(-0.95, 0.3, 0.95, 1.0, (24, 24, 26))
    if oncoming:
        _paint_lorry_load(body, 2.0 / length, height, load)
        _paint_cab(body, cab)
    else:
        _paint_lorry_front(body, cab)
        _paint_lorry_doors(body, height, load)
    for along in (0.1, 0.72, 0.84) if oncoming else (0.14, 0.26, 0.88):
        body.wheel(along, 0.48)
    body.lamps(0.72, 0.82, 0.12)


def _paint_lorry_load(body: Body, start: float, height: float, colour: Colour) -> None:
    """The box behind the cab of an oncoming lorry."""
    lit = tint(colour, body.scene.light.front)
    body.fill(
        ((-1, height, start), (1, height, start), (1, height, 1), (-1, height, 1)), shade(lit, 1.1)
    )
    _paint_band(body, 0.95, height, colour, start, 1)
    body.fill(((-1, 0.9, start), (1, 0.9, start), (1, height, start), (-1, height, start)), lit)


def _paint_cab(body: Body, colour: Colour) -> None:
    """The near face of an oncoming lorry: windscreen, grille, bumper."""
    scene = body.scene
    end, top = 1.8 / body.length, 2.65
    lit = tint(colour, scene.light.front)
    glass = tint(pick(scene.rng, scene.look.glass), scene.light.front)
    _paint_band(body, 0.5, top, colour, 0, end)
    _paint_band(body, 1.55, 2.3, shade(glass, 0.9), 0.12 * end, 0.75 * end)
    body.near(-0.98, 0.4, 0.98, top, lit)
    body.near(-0.88, 1.5, 0.88, 2.35, glass)
    body.near(-0.7, 0.85, 0.7, 1.35, shade(lit, 0.5))
    body.near(-1, 0.4, 1, 0.78, shade(lit, 0.62))
    body.near(-0.95, 0.0, -0.65, 0.42, RUBBER)
    body.near(0.65, 0.0, 0.95, 0.42, RUBBER)


def _paint_lorry_front(body: Body, colour: Colour) -> None:
    """The cab at the far end of a lorry seen from behind."""
    start = 1 - 2.0 / body.length
    _paint_band(body, 0.5, 2.6, colour, start, 1)
    glass = tint(pick(body.scene.rng, body.scene.look.glass), body.side_light)
    side = ((start + 0.06, 1.6), (0.97, 1.6), (0.95, 2.3), (start + 0.06, 2.3))
    body.side(side, glass, 1.005)


def _paint_lorry_doors(body: Body, height: float, colour: Colour) -> None:
    """The load box of a lorry seen from behind, with its two doors and the guard below."""
    end, lit = 1 - 2.3 / body.length, tint(colour, body.scene.light.front)
    body.fill(
        ((-1, height, 0), (1, height, 0), (1, height, end), (-1, height, end)), shade(lit, 1.1)
    )
    _paint_band(body, 0.95, height, colour, 0, end)
    _paint_band(body, 1.7, 2.3, mix(colour, (230, 226, 214), 0.55), 0.12 * end, 0.88 * end)
    for across in (-0.9, 0.55):
        body.near(across, 0.0, across + 0.35, 0.9, RUBBER)
    body.near(-1, 0.95, 1, height, lit)
    body.near(-0.93, 1.05, -0.02, height - 0.12, shade(lit, 0.92))
    body.near(0.02, 1.05, 0.93, height - 0.12, shade(lit, 0.92))
    for across in (-0.3, 0.3):
        body.near(across - 0.02, 1.05, across + 0.02, height - 0.12, shade(lit, 0.6))
    body.near(-0.95, 0.5, 0.95, 0.68, (60, 60, 62))
    body.near(-0.25, 0.7, 0.25, 0.84, tint(PLATE, body.scene.light.front))


def paint_bus(scene: Scene, x: float, z: float, oncoming: bool) -> None:
    """A city bus: windows all along, a destination display, doors in the kerb's side."""
    body = Body(scene, BUS, x, z, 2.55, scene.uniform(9.5, 13), oncoming, lit=True)
    height, colour = scene.uniform(2.95, 3.3), pick_jittered(scene.rng, scene.look.paint)
    light = scene.light
    glass = tint(pick(scene.rng, scene.look.glass), light.front)
    lit = tint(colour, light.front)
    body.side(((0.02, 0.1), (0.98, 0.1), (0.98, 0.5), (0.02, 0.5)), (24, 24, 26), 0.95)
    body.near(-0.95, 0.14, 0.95, 0.5, (22, 22, 24))
    for across in (-0.92, 0.64):
        body.near(across, 0.0, across + 0.28, 0.5, RUBBER)
    _paint_shell(body, height, colour, 0.32)
    _paint_band(body, 0.32, 0.6, shade(colour, 0.6), 0, 1)
    _paint_band(body, 1.2, 2.5, shade(glass, 0.7), 0.02, 0.98)
    _paint_window_row(body, 1.25, 2.45, 7, glass, 0.03, 0.98)
    door = 0.08 if oncoming else 0.84
    for along in (door, 0.5):
        body.side(
            ((along, 0.4), (along + 0.09, 0.4), (along + 0.09, 2.45), (along, 2.45)),
            shade(glass, 0.8),
            1.002,
        )
    for along in (0.22, 0.76):
        body.wheel(along, 0.48)
    low = 1.15 if oncoming else 1.6
    body.near(-0.92, low, 0.92, 2.55, glass)
    body.near(-0.5, low, 0.1, 2.55, shade(glass, 1.15))
    body.near(-0.6, height - 0.34, 0.6, height - 0.1, (24, 24, 26))
    body.near(-0.42, height - 0.28, 0.42, height - 0.16, (255, 176, 40))
    body.near(-1, 0.32, 1, 0.6, shade(lit, 0.6))
    body.near(-0.2, 0.62, 0.2, 0.76, tint(PLATE, light.front))
    body.lamps(0.85, 0.82, 0.1)


def paint_tram(scene: Scene, x: float, z: float, oncoming: bool) -> None:
    """A tram: several cars long, rounded nose, one large windscreen, livery in two colours."""
    body = Body(scene, TRAIN, x, z, 2.45, scene.uniform(20, 30), oncoming, lit=True)
    height = 3.45
    colour = pick_jittered(scene.rng, scene.look.paint)
    second = mix(pick(scene.rng, scene.look.paint), (230, 226, 214), 0.65)
    glass = tint(pick(scene.rng, scene.look.glass), scene.light.front)
    _paint_tram_side(body, height, (colour, second), glass)
    _paint_tram_nose(body, height, (colour, second), glass)
    body.lamps(0.95, 0.66, 0.1)


def _paint_tram_side(
    body: Body, height: float, livery: tuple[Colour, Colour], glass: Colour
) -> None:
    """Windows and doors along the side, bellows between the cars, boxes on the roof."""
    colour, second = livery
    nose = 0.05
    for start, end in ((0.12, 0.3), (0.42, 0.62), (0.7, 0.9)):
        roof = (
            (-0.6, height, start),
            (-0.6, height + 0.4, start),
            (0.6, height + 0.4, start),
            (0.6, height, start),
        )
        body.fill(roof, (104, 106, 108))
        reach = body.seen_side * 0.6
        box = (
            (reach, height, start),
            (reach, height, end),
            (reach, height + 0.4, end),
            (reach, height + 0.4, start),
        )
        body.fill(box, (88, 90, 94))
    body.side(((nose, 0.05), (1, 0.05), (1, 0.4), (nose, 0.4)), (30, 30, 32), 0.95)
    _paint_band(body, 0.22, height, second, nose, 1)
    _paint_band(body, 0.22, 1.15, colour, nose, 1)
    _paint_band(body, height - 0.4, height, colour, nose, 1)
    _paint_window_row(body, 1.35, 2.75, 14, glass, nose + 0.03, 0.99)
    for along in (0.16, 0.45, 0.58, 0.86):
        body.side(
            ((along, 0.3), (along + 0.045, 0.3), (along + 0.045, 2.8), (along, 2.8)),
            shade(glass, 0.75),
            1.002,
        )
    for along in (0.36, 0.68):
        _paint_band(body, 0.25, height, (42, 42, 44), along, along + 0.018)


def _paint_tram_nose(
    body: Body, height: float, livery: tuple[Colour, Colour], glass: Colour
) -> None:
    """The rounded end with its windscreen, display, third lamp and coupling."""
    light = body.scene.light.front
    colour, second = tint(livery[0], light), tint(livery[1], light)
    outline = (
        (-0.8, 0.2),
        (0.8, 0.2),
        (1, 0.5),
        (1, 2.9),
        (0.84, height),
        (-0.84, height),
        (-1, 2.9),
        (-1, 0.5),
    )
    edge = body.seen_side
    cheek = (
        (edge, 0.25, 0.05),
        (edge, height, 0.05),
        (0.84 * edge, height, 0),
        (edge, 2.9, 0),
        (edge, 0.5, 0),
    )
    body.fill(cheek, shade(second, 0.9))
    body.fill([(across, up, 0) for across, up in outline], second)
    body.fill(
        ((-0.8, 0.2, 0), (0.8, 0.2, 0), (1, 0.5, 0), (1, 1.2, 0), (-1, 1.2, 0), (-1, 0.5, 0)),
        colour,
    )
    body.fill(((-0.9, 1.3, 0), (0.9, 1.3, 0), (0.78, 2.8, 0), (-0.78, 2.8, 0)), glass)
    body.fill(((-0.55, 1.3, 0), (0.0, 1.3, 0), (0.2, 2.8, 0), (-0.25, 2.8, 0)), shade(glass, 1.18))
    body.near(-0.55, 2.92, 0.55, 3.2, (24, 24, 26))
    body.near(-0.4, 2.98, 0.3, 3.14, (255, 176, 40))
    body.near(-0.3, 0.1, 0.3, 0.35, (40, 40, 42))
