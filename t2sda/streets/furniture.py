"""Poles and what hangs on them: lamps, traffic lights, signs."""

from __future__ import annotations

import math

from t2sda.streets.canvas import (
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    Color,
    Stamp,
    shade,
    tint,
)
from t2sda.streets.looks import pick_jittered
from t2sda.streets.scene import Scene

SIGNAL_COLORS: tuple[Color, ...] = ((255, 52, 40), (255, 190, 40), (60, 235, 120))
SIGN_RED: Color = (206, 32, 40)
SIGN_BLUE: Color = (30, 92, 184)
SIGN_YELLOW: Color = (242, 200, 48)
SIGN_WHITE: Color = (240, 240, 236)
SIGN_BLACK: Color = (34, 34, 36)
WARM_LAMP: Color = (255, 206, 130)


def paint_street_lamp(scene: Scene, x: float, z: float) -> None:
    """A tall pole whose arm reaches over the road."""
    stamp = scene.stamp(x, z, POLE)
    steel = _pole_color(scene)
    height = scene.uniform(5.5, 8)
    reach = -math.copysign(scene.uniform(1.0, 2.2), x)
    _paint_pole(stamp, height, 0.09, steel)
    stamp.limb(((0, height), (reach * 0.4, height + 0.35), (reach, height + 0.4)), 0.12, steel)
    stamp.box(reach - 0.4, height + 0.3, reach + 0.4, height + 0.5, shade(steel, 0.8))
    if scene.look.lamps:
        stamp.box(reach - 0.3, height + 0.24, reach + 0.3, height + 0.34, WARM_LAMP)
        scene.canvas.shine(
            stamp.at(reach, height + 0.28), 0.9 * stamp.scale, WARM_LAMP, stamp.surface
        )


def paint_traffic_light(scene: Scene, x: float, z: float) -> None:
    """A signal head on a pole, and for tall ones a second head on an arm over the road."""
    stamp = scene.stamp(x, z, POLE)
    steel = _pole_color(scene)
    signal = int(scene.rng.integers(3))
    tall = scene.chance() < 0.5
    height = 5.6 if tall else scene.uniform(3.0, 3.6)
    _paint_pole(stamp, height, 0.09, steel)
    if tall:
        reach = -math.copysign(scene.uniform(2.2, 4.0), x)
        stamp.limb(((0, height - 0.1), (reach, height)), 0.13, steel)
        _paint_signal_head(scene, stamp, reach, height - 1.0, signal)
        height = 3.4
    _paint_signal_head(scene, stamp, 0, height - 1.0, signal)


def _paint_signal_head(scene: Scene, stamp: Stamp, x: float, low: float, signal: int) -> None:
    """A dark box with three lenses, one of them lit (0 red, 1 amber, 2 green)."""
    head = stamp.as_class(TRAFFIC_LIGHT)
    box = tint((46, 48, 48), scene.light.front)
    head.box(x - 0.24, low, x + 0.24, low + 1.25, box)
    for index, color in enumerate(SIGNAL_COLORS):
        y = low + 1.02 - 0.4 * index
        lit = index == signal
        head.disc(x, y, (0.15, 0.15), color if lit else shade(color, 0.24))
        if lit:
            scene.canvas.shine(head.at(x, y), 0.35 * head.scale, color, head.surface)


def paint_sign(scene: Scene, x: float, z: float) -> None:
    """One or two traffic signs on a post."""
    stamp = scene.stamp(x, z, POLE)
    height = scene.uniform(2.3, 3.0)
    _paint_pole(stamp, height + 0.3, 0.05, _pole_color(scene))
    board = stamp.as_class(TRAFFIC_SIGN)
    kinds = (_round_sign, _warning_sign, _square_sign, _stop_sign, _name_board)
    kinds[int(scene.rng.integers(len(kinds)))](scene, board, height)
    if scene.chance() < 0.35:
        _square_sign(scene, board, height - 0.95)


def _round_sign(scene: Scene, board: Stamp, y: float) -> None:
    rim, plate = (SIGN_RED, SIGN_WHITE) if scene.chance() < 0.6 else (SIGN_WHITE, SIGN_BLUE)
    board.disc(0, y, (0.46, 0.46), _lit(scene, rim))
    board.disc(0, y, (0.34, 0.34), _lit(scene, plate))
    mark = SIGN_BLACK if plate is SIGN_WHITE else SIGN_WHITE
    board.box(-0.18, y - 0.07, 0.18, y + 0.07, _lit(scene, mark))


def _warning_sign(scene: Scene, board: Stamp, y: float) -> None:
    board.convex(((-0.56, y - 0.4), (0.56, y - 0.4), (0, y + 0.56)), _lit(scene, SIGN_RED))
    board.convex(((-0.35, y - 0.28), (0.35, y - 0.28), (0, y + 0.32)), _lit(scene, SIGN_WHITE))
    board.box(-0.05, y - 0.2, 0.05, y + 0.1, _lit(scene, SIGN_BLACK))


def _square_sign(scene: Scene, board: Stamp, y: float) -> None:
    plate = SIGN_BLUE if scene.chance() < 0.6 else SIGN_YELLOW
    board.box(-0.42, y - 0.42, 0.42, y + 0.42, _lit(scene, SIGN_WHITE))
    board.box(-0.37, y - 0.37, 0.37, y + 0.37, _lit(scene, plate))
    board.convex(((-0.2, y - 0.2), (0.2, y - 0.2), (0, y + 0.22)), _lit(scene, SIGN_WHITE))


def _stop_sign(scene: Scene, board: Stamp, y: float) -> None:
    for radius, color in ((0.5, SIGN_WHITE), (0.45, SIGN_RED)):
        corners = [
            (radius * math.cos(angle), y + radius * math.sin(angle))
            for angle in (math.pi / 8 + math.pi / 4 * k for k in range(8))
        ]
        board.convex(corners, _lit(scene, color))
    board.box(-0.3, y - 0.09, 0.3, y + 0.09, _lit(scene, SIGN_WHITE))


def _name_board(scene: Scene, board: Stamp, y: float) -> None:
    plate = SIGN_BLUE if scene.chance() < 0.5 else (36, 120, 76)
    board.box(-0.85, y - 0.32, 0.85, y + 0.4, _lit(scene, SIGN_WHITE))
    board.box(-0.8, y - 0.27, 0.8, y + 0.35, _lit(scene, plate))
    for row in (0.12, -0.12):
        board.box(-0.6, y + row - 0.04, 0.4, y + row + 0.05, _lit(scene, SIGN_WHITE))


def _paint_pole(stamp: Stamp, height: float, radius: float, color: Color) -> None:
    stamp.box(-radius, 0, radius, height, color)
    stamp.box(radius * 0.2, 0, radius, height, shade(color, 0.75))
    stamp.box(-radius * 1.7, 0, radius * 1.7, 0.5, shade(color, 0.85))


def _pole_color(scene: Scene) -> Color:
    return tint(pick_jittered(scene.rng, scene.look.metal), scene.light.front)


def _lit(scene: Scene, color: Color) -> Color:
    return tint(color, scene.light.front)
