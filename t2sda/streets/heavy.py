"""Lorries, buses and trams."""

from __future__ import annotations

from t2sda.streets.body import (
    PLATE,
    RUBBER,
    Body,
    paint_band,
    paint_shell,
    paint_window_row,
)
from t2sda.streets.canvas import BUS, TRAIN, TRUCK, Color, mix, shade, tint
from t2sda.streets.looks import pick, pick_jittered
from t2sda.streets.scene import Scene


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


def _paint_lorry_load(body: Body, start: float, height: float, color: Color) -> None:
    """The box behind the cab of an oncoming lorry."""
    lit = tint(color, body.scene.light.front)
    body.fill(
        ((-1, height, start), (1, height, start), (1, height, 1), (-1, height, 1)), shade(lit, 1.1)
    )
    paint_band(body, 0.95, height, color, start, 1)
    body.fill(((-1, 0.9, start), (1, 0.9, start), (1, height, start), (-1, height, start)), lit)


def _paint_cab(body: Body, color: Color) -> None:
    """The near face of an oncoming lorry: windscreen, grille, bumper."""
    scene = body.scene
    end, top = 1.8 / body.length, 2.65
    lit = tint(color, scene.light.front)
    glass = tint(pick(scene.rng, scene.look.glass), scene.light.front)
    paint_band(body, 0.5, top, color, 0, end)
    paint_band(body, 1.55, 2.3, shade(glass, 0.9), 0.12 * end, 0.75 * end)
    body.near(-0.98, 0.4, 0.98, top, lit)
    body.near(-0.88, 1.5, 0.88, 2.35, glass)
    body.near(-0.7, 0.85, 0.7, 1.35, shade(lit, 0.5))
    body.near(-1, 0.4, 1, 0.78, shade(lit, 0.62))
    body.near(-0.95, 0.0, -0.65, 0.42, RUBBER)
    body.near(0.65, 0.0, 0.95, 0.42, RUBBER)


def _paint_lorry_front(body: Body, color: Color) -> None:
    """The cab at the far end of a lorry seen from behind."""
    start = 1 - 2.0 / body.length
    paint_band(body, 0.5, 2.6, color, start, 1)
    glass = tint(pick(body.scene.rng, body.scene.look.glass), body.side_light)
    side = ((start + 0.06, 1.6), (0.97, 1.6), (0.95, 2.3), (start + 0.06, 2.3))
    body.side(side, glass, 1.005)


def _paint_lorry_doors(body: Body, height: float, color: Color) -> None:
    """The load box of a lorry seen from behind, with its two doors and the guard below."""
    end, lit = 1 - 2.3 / body.length, tint(color, body.scene.light.front)
    body.fill(
        ((-1, height, 0), (1, height, 0), (1, height, end), (-1, height, end)), shade(lit, 1.1)
    )
    paint_band(body, 0.95, height, color, 0, end)
    paint_band(body, 1.7, 2.3, mix(color, (230, 226, 214), 0.55), 0.12 * end, 0.88 * end)
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
    height, color = scene.uniform(2.95, 3.3), pick_jittered(scene.rng, scene.look.paint)
    light = scene.light
    glass = tint(pick(scene.rng, scene.look.glass), light.front)
    lit = tint(color, light.front)
    body.side(((0.02, 0.1), (0.98, 0.1), (0.98, 0.5), (0.02, 0.5)), (24, 24, 26), 0.95)
    body.near(-0.95, 0.14, 0.95, 0.5, (22, 22, 24))
    for across in (-0.92, 0.64):
        body.near(across, 0.0, across + 0.28, 0.5, RUBBER)
    paint_shell(body, height, color, 0.32)
    paint_band(body, 0.32, 0.6, shade(color, 0.6), 0, 1)
    paint_band(body, 1.2, 2.5, shade(glass, 0.7), 0.02, 0.98)
    paint_window_row(body, 1.25, 2.45, 7, glass, 0.03, 0.98)
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
    """A tram: several cars long, rounded nose, one large windscreen, livery in two colors."""
    body = Body(scene, TRAIN, x, z, 2.45, scene.uniform(20, 30), oncoming, lit=True)
    height = 3.45
    color = pick_jittered(scene.rng, scene.look.paint)
    second = mix(pick(scene.rng, scene.look.paint), (230, 226, 214), 0.65)
    glass = tint(pick(scene.rng, scene.look.glass), scene.light.front)
    _paint_tram_side(body, height, (color, second), glass)
    _paint_tram_nose(body, height, (color, second), glass)
    body.lamps(0.95, 0.66, 0.1)


def _paint_tram_side(body: Body, height: float, livery: tuple[Color, Color], glass: Color) -> None:
    """Windows and doors along the side, bellows between the cars, boxes on the roof."""
    color, second = livery
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
    paint_band(body, 0.22, height, second, nose, 1)
    paint_band(body, 0.22, 1.15, color, nose, 1)
    paint_band(body, height - 0.4, height, color, nose, 1)
    paint_window_row(body, 1.35, 2.75, 14, glass, nose + 0.03, 0.99)
    for along in (0.16, 0.45, 0.58, 0.86):
        body.side(
            ((along, 0.3), (along + 0.045, 0.3), (along + 0.045, 2.8), (along, 2.8)),
            shade(glass, 0.75),
            1.002,
        )
    for along in (0.36, 0.68):
        paint_band(body, 0.25, height, (42, 42, 44), along, along + 0.018)


def _paint_tram_nose(body: Body, height: float, livery: tuple[Color, Color], glass: Color) -> None:
    """The rounded end with its windscreen, display, third lamp and coupling."""
    light = body.scene.light.front
    color, second = tint(livery[0], light), tint(livery[1], light)
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
        color,
    )
    body.fill(((-0.9, 1.3, 0), (0.9, 1.3, 0), (0.78, 2.8, 0), (-0.78, 2.8, 0)), glass)
    body.fill(((-0.55, 1.3, 0), (0.0, 1.3, 0), (0.2, 2.8, 0), (-0.25, 2.8, 0)), shade(glass, 1.18))
    body.near(-0.55, 2.92, 0.55, 3.2, (24, 24, 26))
    body.near(-0.4, 2.98, 0.3, 3.14, (255, 176, 40))
    body.near(-0.3, 0.1, 0.3, 0.35, (40, 40, 42))
