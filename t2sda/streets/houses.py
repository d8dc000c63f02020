"""Houses: those along the street and those of the skyline at its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2sda.streets.canvas import (
    BRICK,
    BUILDING,
    FOLIAGE,
    PLASTER,
    UNIT,
    VEGETATION,
    Color,
    Ink,
    mix,
    shade,
    tint,
)
from t2sda.streets.looks import pick, pick_jittered
from t2sda.streets.scene import Scene

CORNERS = np.array(((0, 0), (1, 0), (1, 1), (0, 1)))
LIT_WINDOW: Color = (250, 204, 120)


@dataclass(frozen=True)
class House:
    """A box with its facade on the street; `sign` is the side of the street it stands on."""

    sign: int
    x: float
    near: float
    far: float
    eaves: float
    roof: float
    """Height of the ridge above the eaves; 0: a flat roof."""
    floors: int
    bays: int
    color: Color
    texture: int
    """BRICK or PLASTER."""


def sample_house(
    scene: Scene, sign: int, edge: float, setback: float, near: float, far: float
) -> House:
    """A house of random height, color and roof on the stretch near..far."""
    floors = int(scene.rng.integers(2, 7))
    return House(
        sign=sign,
        x=edge + sign * setback,
        near=near,
        far=far,
        eaves=floors * scene.uniform(2.8, 3.4) + 0.8,
        roof=scene.uniform(1.5, 3.5) if scene.chance() < 0.6 else 0.0,
        floors=floors,
        bays=max(1, round((far - near) / scene.uniform(2.0, 3.2))),
        color=pick_jittered(scene.rng, scene.look.facades),
        texture=BRICK if scene.chance() < 0.45 else PLASTER,
    )


def paint_house(scene: Scene, house: House) -> None:
    """Roof, gable, facade with cornice and plinth, windows, ground floor."""
    if scene.outside(house.x, house.far):
        return
    lit = tint(house.color, scene.light.facade(house.sign))
    _paint_roof_and_gable(scene, house)
    middle = 0.5 * (house.near + house.far)
    ink = scene.canvas.ink(lit, BUILDING, middle, house.texture)
    upright(scene, house.x, (house.near, house.far, 0, house.eaves), ink)
    trim = scene.canvas.ink(shade(lit, 1.12), BUILDING, middle, PLASTER)
    upright(scene, house.x, (house.near, house.far, house.eaves - 0.4, house.eaves), trim)
    base = scene.canvas.ink(shade(lit, 0.72), BUILDING, middle, PLASTER)
    upright(scene, house.x, (house.near, house.far, 0, 0.5), base)
    camera = scene.camera
    ends = [camera.project(house.x, 0, z)[0] for z in (house.near, house.far)]
    if abs(ends[0] - ends[1]) > 3.5 * UNIT * house.bays:
        _paint_windows(scene, house, lit, middle)
        _paint_ground_floor(scene, house, lit, middle)


def _paint_roof_and_gable(scene: Scene, house: House) -> None:
    """The wall that faces the camera, and the roof as far as it is seen."""
    front = tint(house.color, scene.light.front)
    depth = 11.0
    wall = scene.canvas.ink(front, BUILDING, house.near, PLASTER)
    back = house.x + house.sign * depth
    if house.roof:
        project, ridge = scene.camera.project, house.x + house.sign * depth / 2
        top = house.eaves + house.roof
        tiles = tint(pick_jittered(scene.rng, scene.look.roofs), scene.light.facade(house.sign))
        ink = scene.canvas.ink(tiles, BUILDING, house.near, PLASTER)
        low_near, low_far = (project(house.x, house.eaves, z) for z in (house.near, house.far))
        top_near, top_far = (project(ridge, top, z) for z in (house.near, house.far))
        scene.canvas.convex((low_near, top_near, top_far, low_far), ink)
        gable = (low_near, top_near, project(back, house.eaves, house.near))
        scene.canvas.convex(gable, wall)
    frontal(scene, house.near, (house.x, back, 0, house.eaves), wall)
    if scene.camera.scale(house.near) > 8:
        _paint_gable_windows(scene, house, front)


def _paint_gable_windows(scene: Scene, house: House, front: Color) -> None:
    """Two columns of windows in the wall that faces the camera."""
    storey = (house.eaves - 0.8) / house.floors
    low = 0.5 + storey * (np.arange(house.floors)[:, None, None] + 0.3)  # (floors, 1, 1)
    y = low + 0.45 * storey * CORNERS[:, 1]
    columns = house.x + house.sign * np.array(((2.0,), (5.2,)))
    x = columns + house.sign * 1.1 * CORNERS[:, 0]  # (2, 4)
    panes = scene.camera.project_all(x, y, np.full(1, house.near)).reshape(-1, 4, 2)
    glass = mix(tint(pick(scene.rng, scene.look.glass), scene.light.front), front, 0.15)
    scene.canvas.polygons(panes, scene.canvas.ink(glass, BUILDING, house.near))
    lit = panes[scene.rng.random(len(panes)) < scene.look.lit_windows]
    scene.canvas.polygons(lit, scene.canvas.ink(LIT_WINDOW, BUILDING, house.near))


def _paint_windows(scene: Scene, house: House, lit: Color, z: float) -> None:
    """Rows of framed windows above the ground floor; some with light behind them."""
    frame = mix(shade(lit, 1.25), (240, 238, 232), 0.3) if scene.chance() < 0.7 else shade(lit, 0.7)
    frames, panes, bars = _window_grid(scene, house)
    frame_ink = scene.canvas.ink(frame, BUILDING, z)
    scene.canvas.polygons(frames, frame_ink)
    glass = tint(pick(scene.rng, scene.look.glass), scene.light.facade(house.sign))
    bright = mix(glass, (190, 205, 220), 0.35)
    kinds = scene.rng.random(len(panes))
    scene.canvas.polygons(panes, scene.canvas.ink(glass, BUILDING, z))
    scene.canvas.polygons(panes[kinds > 0.75], scene.canvas.ink(bright, BUILDING, z))
    lamp_ink = scene.canvas.ink(LIT_WINDOW, BUILDING, z)
    scene.canvas.polygons(panes[kinds < scene.look.lit_windows], lamp_ink)
    if scene.camera.scale(house.near) > 18:
        scene.canvas.polygons(bars, frame_ink)


def _window_grid(scene: Scene, house: House) -> np.ndarray:
    """(3, N, 4, 2) outlines of frames, panes and middle bars of all windows above the ground."""
    storey, bay = (house.eaves - 0.8) / house.floors, (house.far - house.near) / house.bays
    wide, high = bay * scene.uniform(0.21, 0.3), storey * scene.uniform(0.25, 0.33)
    half_wide, half_high = np.array((wide + 0.14, wide, 0.04)), np.array((high + 0.14, high, high))
    centre_z = house.near + bay * (np.arange(house.bays) + 0.5)
    centre_y = 0.5 + storey * (np.arange(1, house.floors) + 0.5)
    across, up = 2 * CORNERS[:, 0] - 1, 2 * CORNERS[:, 1] - 1
    z = centre_z[:, None] + half_wide[:, None, None] * across  # (3, bays, 4)
    y = centre_y[:, None] + half_high[:, None, None] * up  # (3, floors - 1, 4)
    outlines = scene.camera.project_all(house.x, y[:, :, None], z[:, None])
    return outlines.reshape(3, -1, 4, 2)


def _paint_ground_floor(scene: Scene, house: House, lit: Color, z: float) -> None:
    """Shop windows under an awning, or a door and small windows."""
    bay = (house.far - house.near) / house.bays
    shop = scene.chance() < 0.4
    glass = tint(pick(scene.rng, scene.look.glass), scene.light.facade(house.sign))
    if shop and scene.chance() < 2 * scene.look.lit_windows:
        glass = LIT_WINDOW
    pane = scene.canvas.ink(glass, BUILDING, z)
    door = int(scene.rng.integers(house.bays))
    for index in range(house.bays):
        near = house.near + bay * (index + 0.14)
        far = near + bay * 0.72
        if index == door:
            wood = tint(pick_jittered(scene.rng, scene.look.paint), scene.light.facade(house.sign))
            ink = scene.canvas.ink(shade(wood, 0.7), BUILDING, z)
            upright(scene, house.x, (near + bay * 0.16, far - bay * 0.16, 0, 2.2), ink)
        else:
            low, high = (0.6, 2.5) if shop else (1.0, 2.3)
            upright(scene, house.x, (near, far, low, high), pane)
    if shop:
        _paint_awning(scene, house, z)


def _paint_awning(scene: Scene, house: House, z: float) -> None:
    cloth = tint(pick_jittered(scene.rng, scene.look.paint), scene.light.facade(house.sign))
    ink = scene.canvas.ink(cloth, BUILDING, z)
    sign_ink = scene.canvas.ink(mix(cloth, (236, 230, 214), 0.6), BUILDING, z)
    upright(scene, house.x, (house.near + 0.3, house.far - 0.3, 2.75, 3.3), sign_ink)
    project, out = scene.camera.project, house.x - house.sign * 0.9
    near, far = house.near + 0.3, house.far - 0.3
    corners = (
        project(house.x, 2.85, near),
        project(out, 2.4, near),
        project(out, 2.4, far),
        project(house.x, 2.85, far),
    )
    scene.canvas.convex(corners, ink)


# The skyline


def paint_skyline(scene: Scene) -> None:
    """Far houses and trees at the horizon, where the street ends."""
    camera, width = scene.camera, UNIT * scene.canvas.size[1]
    z = scene.street.length + 25
    metre, horizon = UNIT * camera.scale(z), UNIT * camera.horizon
    u = -5 * metre * scene.chance()
    while u < width:
        right = u + scene.uniform(8, 22) * metre
        if scene.chance() < 0.55:
            top = horizon - scene.uniform(5, 20) * metre
            _paint_far_house(scene, (u, top, right, horizon + 1.5 * metre), z)
        else:
            _paint_far_trees(scene, u, right, z)
        u = right


def _paint_far_trees(scene: Scene, left: float, right: float, z: float) -> None:
    """A grove: overlapping crowns on a hedge."""
    metre, horizon = UNIT * scene.camera.scale(z), UNIT * scene.camera.horizon
    while left < right:
        radius = scene.uniform(2.0, 3.6) * metre
        green = shade(scene.foliage, scene.uniform(0.7, 0.95))
        ink = scene.canvas.ink(green, VEGETATION, z, FOLIAGE)
        top = horizon - scene.uniform(1.5, 4.5) * metre
        scene.canvas.disc((left + radius / 2, top), (radius, radius), ink)
        low = horizon + 1.5 * metre
        foot = ((left - radius / 2, top), (left + 1.5 * radius, top))
        scene.canvas.convex((*foot, (foot[1][0], low), (foot[0][0], low)), ink)
        left += 1.3 * radius


def _paint_far_house(scene: Scene, bounds: tuple[float, float, float, float], z: float) -> None:
    """A house that faces the camera, with rows of small windows."""
    left, top, right, low = bounds
    wall = tint(pick_jittered(scene.rng, scene.look.facades), scene.light.front)
    ink = scene.canvas.ink(wall, BUILDING, z, PLASTER)
    scene.canvas.convex(((left, top), (right, top), (right, low), (left, low)), ink)
    step = UNIT * max(3.0 * scene.camera.scale(z), 6.0)
    u = np.arange(left + 0.4 * step, right - 0.6 * step, step)[:, None] + CORNERS[:, 0] * step / 2
    v = np.arange(top + 0.4 * step, low - step, step)[:, None] + CORNERS[:, 1] * step / 2
    windows = np.empty((len(v), len(u), 4, 2))
    windows[..., 0], windows[..., 1] = u, v[:, None]
    dark = scene.canvas.ink(shade(wall, 0.72), BUILDING, z)
    scene.canvas.polygons(windows.reshape(-1, 4, 2), dark)


# Quads


def upright(scene: Scene, x: float, bounds: tuple[float, float, float, float], ink: Ink) -> None:
    """A quad in the plane of a facade: x and (near, far, bottom, top)."""
    near, far, low, high = bounds
    project = scene.camera.project
    corners = (
        project(x, low, near),
        project(x, low, far),
        project(x, high, far),
        project(x, high, near),
    )
    scene.canvas.convex(corners, ink)


def frontal(scene: Scene, z: float, bounds: tuple[float, float, float, float], ink: Ink) -> None:
    """A quad that faces the camera: z and (x0, x1, bottom, top)."""
    x0, x1, low, high = bounds
    (u0, v0), (u1, v1) = scene.camera.project(x0, low, z), scene.camera.project(x1, high, z)
    scene.canvas.convex(((u0, v0), (u1, v0), (u1, v1), (u0, v1)), ink)
