"""Cars, from hatchback to van."""

from __future__ import annotations

from dataclasses import dataclass

from t2sda.streets.body import PLATE, RUBBER, Body
from t2sda.streets.canvas import CAR, Color, mix, shade, tint
from t2sda.streets.looks import pick, pick_jittered
from t2sda.streets.scene import Scene


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


def _paint_car_side(body: Body, shape: Profile, paint: Color, glass: Color) -> None:
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
    across, roof = body.seen_side, body.seen_side * TAPER
    top = shape.roof_height
    cabin = (
        (across, shape.belt, start),
        (roof, top, rise),
        (roof, top, fall),
        (across, shape.belt, end),
    )
    body.fill(cabin, paint)
    _paint_side_windows(body, shape, glass)


def _paint_tops(body: Body, shape: Profile, paint: Color) -> None:
    """Bonnet, boot and roof as far as the camera looks down on them."""
    start, rise, fall, end = shape.cabin
    belt, top, far = shape.belt, shape.roof_height, shape.far_height
    body.fill(((-1, belt, end), (1, belt, end), (1, far, 1), (-1, far, 1)), paint)
    near = shape.near_height
    body.fill(((-1, near, 0), (1, near, 0), (1, belt, start), (-1, belt, start)), paint)
    roof = ((-TAPER, top, rise), (TAPER, top, rise), (TAPER, top, fall), (-TAPER, top, fall))
    body.fill(roof, paint)


def _paint_side_windows(body: Body, shape: Profile, glass: Color) -> None:
    start, rise, fall, end = shape.cabin
    low, high = shape.belt + 0.03, shape.roof_height - 0.08
    span = high - low
    lean = (1 - TAPER) * 0.85

    def pane(bottom: float, top: float, top_end: float, bottom_end: float) -> None:
        inner, outer = body.seen_side * 0.995, body.seen_side * (0.995 - lean)
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


def _paint_car_near(body: Body, shape: Profile, paint: Color, glass: Color) -> None:
    """The end towards the camera: body, bumper, window, plate and grille."""
    start, rise, _, _ = shape.cabin
    near, belt, top = shape.near_height, shape.belt, shape.roof_height
    frame = ((-1, belt, start), (1, belt, start), (TAPER, top, rise), (-TAPER, top, rise))
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
    corner = sorted((0.9 * body.seen_side, body.seen_side))
    body.near(corner[0], 0.3, corner[1], near, shade(paint, 0.9))
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
