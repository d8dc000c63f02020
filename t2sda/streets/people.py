"""Pedestrians, riders and two-wheelers: flat figures that stand upright in the street."""

from __future__ import annotations

from collections.abc import Callable

from t2sda.streets.canvas import (
    BICYCLE,
    MOTORCYCLE,
    PERSON,
    RIDER,
    Color,
    Stamp,
    mix,
    shade,
    tint,
)
from t2sda.streets.looks import palette, pick, pick_jittered
from t2sda.streets.scene import Scene

SKIN = palette("f0c8a8 e0ac88 c48a64 94623f 6b4630 dcb496")
HAIR = palette("2a2220 4e3626 7a5230 b08850 86827e 1c1a1c")
SHOES = palette("26242a 5a4030 e6e2da 3a4a66")
TYRE: Color = (30, 30, 32)


def paint_person(scene: Scene, x: float, z: float) -> None:
    """A pedestrian who walks or stands; clothes, stature and luggage vary."""
    size = scene.uniform(0.92, 1.08) if scene.chance() < 0.88 else scene.uniform(0.62, 0.75)
    mirror = 1.0 if scene.chance() < 0.5 else -1.0
    stamp = scene.stamp(x, z, PERSON, mirror)
    stamp.scale *= size
    top, bottom = (_cloth(scene) for _ in range(2))
    skin = tint(pick(scene.rng, SKIN), scene.light.front)
    stride = scene.uniform(0.05, 0.32)
    outfit = OUTFITS[int(scene.rng.integers(len(OUTFITS)))]
    _paint_arm(stamp, (-0.19, -0.16 - 0.5 * stride), shade(top, 0.7), skin)
    _paint_legs(scene, stamp, stride, skin if outfit is _paint_dress else bottom)
    outfit(scene, stamp, top, bottom)
    _paint_arm(stamp, (0.17, 0.16 + 0.6 * stride), shade(top, 0.86), skin)
    _paint_head(scene, stamp, (0.02, 1.62), skin)
    if scene.chance() < 0.35 and stamp.detail > 10:
        _paint_bag(scene, stamp)


def _cloth(scene: Scene) -> Color:
    return tint(pick_jittered(scene.rng, scene.look.clothes, 0.18), scene.light.front)


def _paint_arm(stamp: Stamp, reach: tuple[float, float], sleeve: Color, skin: Color) -> None:
    """Shoulder, elbow and hand."""
    shoulder, hand = reach
    stamp.disc(hand + 0.02, 0.8, (0.05, 0.06), skin)
    stamp.limb(((shoulder, 1.38), (0.6 * shoulder + 0.5 * hand, 1.1), (hand, 0.86)), 0.11, sleeve)


def _paint_legs(scene: Scene, stamp: Stamp, stride: float, color: Color) -> None:
    """The far leg darker, both in mid step."""
    shoes = tint(pick(scene.rng, SHOES), scene.light.front)
    for direction, light in ((-1, 0.78), (1, 1.0)):
        foot = direction * stride
        knee = (0.55 * foot + 0.06, 0.48)
        stamp.limb(((0.06 * direction, 0.9), knee, (foot, 0.1)), 0.15, shade(color, light))
        stamp.disc(foot + 0.05, 0.05, (0.14, 0.055), shade(shoes, light))


def _paint_jacket(scene: Scene, stamp: Stamp, top: Color, bottom: Color) -> None:
    torso = (
        (-0.17, 0.86),
        (0.17, 0.86),
        (0.21, 1.2),
        (0.19, 1.45),
        (0.06, 1.5),
        (-0.07, 1.5),
        (-0.2, 1.44),
        (-0.21, 1.2),
    )
    stamp.polygon(torso, top)
    stamp.polygon(
        ((0.05, 0.86), (0.17, 0.86), (0.21, 1.2), (0.19, 1.45), (0.08, 1.48)), shade(top, 0.86)
    )
    stamp.box(-0.17, 0.84, 0.17, 0.9, shade(bottom, 0.7))


def _paint_coat(scene: Scene, stamp: Stamp, top: Color, bottom: Color) -> None:
    coat = (
        (-0.25, 0.52),
        (0.25, 0.52),
        (0.19, 1.0),
        (0.2, 1.44),
        (0.06, 1.5),
        (-0.07, 1.5),
        (-0.21, 1.44),
        (-0.19, 1.0),
    )
    stamp.polygon(coat, top)
    stamp.polygon(
        ((0.06, 0.52), (0.25, 0.52), (0.19, 1.0), (0.2, 1.44), (0.08, 1.48)), shade(top, 0.85)
    )


def _paint_dress(scene: Scene, stamp: Stamp, top: Color, bottom: Color) -> None:
    stamp.polygon(((-0.27, 0.58), (0.27, 0.58), (0.13, 1.02), (-0.13, 1.02)), bottom)
    stamp.polygon(((0.03, 0.58), (0.27, 0.58), (0.13, 1.02), (0.03, 1.02)), shade(bottom, 0.86))
    stamp.polygon(
        ((-0.14, 1.0), (0.14, 1.0), (0.18, 1.42), (0.05, 1.5), (-0.06, 1.5), (-0.18, 1.42)), top
    )


OUTFITS: tuple[Callable[[Scene, Stamp, Color, Color], None], ...] = (
    _paint_jacket,
    _paint_jacket,
    _paint_coat,
    _paint_dress,
)


def _paint_head(scene: Scene, stamp: Stamp, place: tuple[float, float], skin: Color) -> None:
    x, y = place
    hair = tint(pick(scene.rng, HAIR), scene.light.front)
    stamp.limb(((x, y - 0.17), (x, y - 0.05)), 0.1, shade(skin, 0.85))
    stamp.disc(x - 0.015, y + 0.025, (0.125, 0.145), hair)
    if scene.chance() < 0.4:
        stamp.limb(((x - 0.07, y + 0.03), (x - 0.09, y - 0.18)), 0.1, hair)
    stamp.disc(x + 0.025, y - 0.015, (0.095, 0.115), skin)


def _paint_bag(scene: Scene, stamp: Stamp) -> None:
    color = _cloth(scene)
    if scene.chance() < 0.5:
        stamp.polygon(((-0.34, 1.02), (-0.16, 1.0), (-0.14, 1.4), (-0.3, 1.42)), color)
    else:
        stamp.box(0.24, 0.52, 0.44, 0.78, color)
        stamp.limb(((0.29, 0.78), (0.34, 0.9), (0.39, 0.78)), 0.03, shade(color, 0.7))


# Two-wheelers


def paint_bicycle(scene: Scene, x: float, z: float, turn: float) -> None:
    """A parked bicycle."""
    _paint_bicycle(scene, scene.stamp(x, z, BICYCLE, turn))


def paint_cyclist(scene: Scene, x: float, z: float, turn: float) -> None:
    """A rider on a bicycle; `turn` is how much of its length is seen, negative heads left."""
    stamp = scene.stamp(x, z, BICYCLE, turn)
    rider = stamp.as_class(RIDER)
    top, bottom = (_cloth(scene) for _ in range(2))
    skin = tint(pick(scene.rng, SKIN), scene.light.front)
    rider.limb(((-0.2, 1.0), (0.22, 0.82), (0.02, 0.46)), 0.15, shade(bottom, 0.75))
    _paint_bicycle(scene, stamp)
    rider.limb(((-0.2, 1.0), (0.16, 0.68), (-0.06, 0.27)), 0.16, bottom)
    rider.disc(0.02, 0.22, (0.14, 0.06), (40, 38, 40))
    _paint_rider_trunk(scene, rider, ((-0.2, 0.98), (0.16, 1.45), (0.5, 1.06)), top, skin)
    helmet = scene.chance() < 0.6
    head = (0.24, 1.64)
    _paint_head(scene, rider, head, skin)
    if helmet:
        rider.polygon(
            ((0.06, 1.66), (0.1, 1.79), (0.24, 1.84), (0.38, 1.78), (0.42, 1.67)), _cloth(scene)
        )


def _paint_rider_trunk(
    scene: Scene,
    rider: Stamp,
    joints: tuple[tuple[float, float], tuple[float, float], tuple[float, float]],
    top: Color,
    skin: Color,
) -> None:
    """Back and arms of a rider from the hip over the shoulder to the hands."""
    hip, shoulder, hand = joints
    middle = (0.5 * (hip[0] + shoulder[0]) - 0.04, 0.5 * (hip[1] + shoulder[1]))
    rider.limb((hip, middle, shoulder), 0.3, top)
    elbow = (0.5 * (shoulder[0] + hand[0]) - 0.02, 0.5 * (shoulder[1] + hand[1]) - 0.07)
    rider.limb((shoulder, elbow, hand), 0.12, shade(top, 0.82))
    rider.disc(*hand, (0.06, 0.06), skin)


def _paint_bicycle(scene: Scene, stamp: Stamp) -> None:
    """Two wheels, frame, saddle and handlebar; the gaps between the spokes count as bicycle."""
    frame = tint(pick_jittered(scene.rng, scene.look.paint), scene.light.front)
    spokes = mix(shade(scene.asphalt, 0.9), (126, 126, 128), 0.5)
    for along in (-0.52, 0.52):
        stamp.disc(along, 0.35, (0.35, 0.35), TYRE)
        stamp.disc(along, 0.35, (0.28, 0.28), tint(spokes, scene.light.front))
        stamp.disc(along, 0.35, (0.05, 0.05), TYRE)
    rear, pedals, seat, head = (-0.52, 0.35), (-0.06, 0.32), (-0.2, 0.86), (0.38, 0.84)
    for tube in ((rear, pedals, head), (rear, seat, head), (pedals, seat), (head, (0.52, 0.35))):
        stamp.limb(tube, 0.05, frame)
    stamp.limb((head, (0.37, 1.02), (0.5, 1.05)), 0.045, (54, 54, 56))
    stamp.limb(((-0.34, 0.93), (-0.08, 0.93)), 0.08, (38, 34, 32))
    stamp.disc(*pedals, (0.09, 0.09), (70, 70, 72))


def paint_motorcycle(scene: Scene, x: float, z: float, turn: float) -> None:
    """A parked motorcycle or scooter."""
    _paint_motorcycle(scene, scene.stamp(x, z, MOTORCYCLE, turn))


def paint_motorcyclist(scene: Scene, x: float, z: float, turn: float) -> None:
    """A rider with a helmet on a motorcycle."""
    stamp = scene.stamp(x, z, MOTORCYCLE, turn)
    rider = stamp.as_class(RIDER)
    top, bottom, helmet = (_cloth(scene) for _ in range(3))
    _paint_motorcycle(scene, stamp)
    rider.limb(((-0.28, 0.88), (0.14, 0.72), (0.0, 0.32)), 0.18, bottom)
    rider.disc(0.07, 0.27, (0.16, 0.07), (34, 32, 34))
    _paint_rider_trunk(scene, rider, ((-0.28, 0.92), (0.0, 1.38), (0.46, 1.04)), top, (36, 34, 36))
    rider.disc(0.1, 1.6, (0.16, 0.17), helmet)
    rider.polygon(((0.12, 1.55), (0.27, 1.55), (0.26, 1.66), (0.14, 1.67)), (26, 28, 34))


def _paint_motorcycle(scene: Scene, stamp: Stamp) -> None:
    """Fat tyres, engine, tank, seat, fork and lamp."""
    paint = tint(pick_jittered(scene.rng, scene.look.paint), scene.light.front)
    for along in (-0.68, 0.7):
        stamp.disc(along, 0.33, (0.33, 0.33), TYRE)
        stamp.disc(along, 0.33, (0.2, 0.2), (112, 112, 116))
        stamp.disc(along, 0.33, (0.08, 0.08), (52, 52, 54))
    stamp.polygon(((-0.4, 0.22), (0.34, 0.22), (0.42, 0.62), (-0.36, 0.62)), (58, 58, 62))
    stamp.polygon(((-0.16, 0.28), (0.2, 0.28), (0.24, 0.52), (-0.14, 0.52)), (120, 120, 124))
    stamp.limb(((0.7, 0.33), (0.44, 1.0)), 0.09, (150, 150, 154))
    stamp.polygon(
        ((-0.95, 0.66), (-0.3, 0.56), (0.0, 0.62), (-0.02, 0.84), (-0.5, 0.82), (-0.96, 0.9)),
        shade(paint, 0.8),
    )
    stamp.polygon(((-0.06, 0.62), (0.44, 0.66), (0.48, 0.88), (0.3, 1.02), (0.04, 0.98)), paint)
    stamp.polygon(((-0.66, 0.8), (0.02, 0.78), (0.02, 0.9), (-0.62, 0.92)), (28, 26, 28))
    stamp.limb(((0.4, 0.98), (0.36, 1.1), (0.5, 1.12)), 0.06, (40, 40, 42))
    stamp.disc(0.56, 0.92, (0.1, 0.12), (226, 226, 214))
    stamp.limb(((-0.1, 0.26), (-0.8, 0.34)), 0.1, (140, 140, 144))
