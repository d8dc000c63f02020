"""Sky, road, pavements, markings and the shadows on them."""

from __future__ import annotations

import cv2
import numpy as np

from t2sda.streets.canvas import (
    ASPHALT,
    GRASS,
    HALF_DEPTH_METRES,
    PAVING,
    PLAIN,
    ROAD,
    SIDEWALK,
    SKY,
    SKY_DEPTH,
    TERRAIN,
    UNIT,
    Color,
    mix,
    shade,
)
from t2sda.streets.looks import jitter, pick, pick_jittered
from t2sda.streets.plan import Side
from t2sda.streets.scene import Scene
from t2sda.streets.textures import cut

FAR = 400.0
RAMP = np.linspace(0, 1, 9)
ENDS = np.array((0.0, 1.0))
BEYOND = 60.0
"""How far the ground reaches to both sides."""


def paint_sky(scene: Scene) -> None:
    """A gradient with clouds that thin out towards the horizon."""
    height, width = scene.canvas.size
    rows = min(int(scene.street.camera.horizon) + 2, height)
    top = np.array(mix(*scene.look.sky_top, scene.chance()), np.float32)
    low = np.array(mix(*scene.look.sky_low, scene.chance()), np.float32)
    ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    gradient = top + (low - top) * ramp**0.8  # (rows, 3)
    cover = scene.uniform(*scene.look.cloud_cover)
    clouds = cut(scene.screens.clouds, (rows, width), scene.rng)
    amount = np.clip(clouds + (cover - 0.95), 0, 1) * (1.6 * (1.05 - ramp))
    np.minimum(amount, 1, out=amount)
    planes = [
        (base := gradient[:, channel, None]) + (cloud - base) * amount
        for channel, cloud in enumerate(scene.look.cloud)
    ]
    planes.append(np.full_like(amount, SKY | PLAIN << 5 | SKY_DEPTH << 8))
    scene.canvas.pixels[:rows] = cv2.merge(planes)


def paint_ground(scene: Scene) -> None:
    """Everything that lies flat, then the depth of its rows and the shadows on it."""
    _paint_terrain(scene)
    for side in scene.street.sides:
        _paint_side(scene, side)
    _paint_road(scene)
    _paint_crossing_street(scene)
    _paint_markings(scene)
    _write_depth(scene)


def _strip(scene: Scene, x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """Outline of a stretch of ground between two lines along the street; follows the bend."""
    z0 = max(z0, scene.nearest_ground)
    z1 = max(z1, z0 + 0.01)
    z = z0 * (z1 / z0) ** (ENDS if z1 < 1.6 * z0 else RAMP)
    z = np.concatenate((z, z[::-1]))
    half = len(z) // 2
    return scene.camera.project_all(np.repeat((x0, x1), half), 0.0, z)


def _lay(
    scene: Scene,
    bounds: tuple[float, float, float, float],
    color: Color,
    class_id: int,
    texture: int,
) -> None:
    """Fill the stretch of ground (x0, x1, z0, z1)."""
    ink = scene.canvas.ink(color, class_id, 0, texture)
    scene.canvas.polygon(_strip(scene, *bounds), ink)


def _lay_all(scene: Scene, bounds: np.ndarray, color: Color) -> None:
    """Fill short stretches of road, (N, 4) rows of (x0, x1, z0, z1), that do not overlap."""
    bounds = bounds[bounds[:, 2] > scene.nearest_ground]
    x, z = bounds[:, (0, 0, 1, 1)], bounds[:, (2, 3, 3, 2)]
    ink = scene.canvas.ink(color, ROAD, 0, ASPHALT)
    scene.canvas.polygons(scene.camera.project_all(x, 0.0, z), ink)


def _paint_terrain(scene: Scene) -> None:
    height, width = scene.canvas.size
    color = pick_jittered(scene.rng, scene.look.grass)
    right, low, horizon = UNIT * width, UNIT * height, UNIT * scene.camera.horizon
    corners = ((0, horizon), (right, horizon), (right, low), (0, low))
    scene.canvas.convex(corners, scene.canvas.ink(color, TERRAIN, 0, GRASS))


def _paint_side(scene: Scene, side: Side) -> None:
    """Grass verge, pavement and kerb of one side."""
    paving = pick_jittered(scene.rng, scene.look.paving)
    _lay(scene, (side.walk_start, side.edge, 0, FAR), paving, SIDEWALK, PAVING)
    for segment in side.segments:
        if segment.kind == "building":  # paved up to the facade, whatever the set-back
            bounds = (side.edge, side.edge + side.sign * 6, segment.near, segment.far)
            _lay(scene, bounds, paving, SIDEWALK, PAVING)
    if side.verge:
        grass = pick_jittered(scene.rng, scene.look.grass)
        _lay(scene, (side.kerb, side.walk_start, 0, FAR), grass, TERRAIN, GRASS)
    stone = shade(paving, 1.12)
    _lay(scene, (side.kerb, side.kerb + side.sign * 0.28, 0, FAR), stone, SIDEWALK, PLAIN)


def _paint_road(scene: Scene) -> None:
    """Asphalt with darker gutters, wheel tracks and patches of repair."""
    asphalt = scene.asphalt
    left, right = scene.street.left.kerb, scene.street.right.kerb
    _lay(scene, (left, right, 0, FAR), asphalt, ROAD, ASPHALT)
    for side in scene.street.sides:
        gutter = (side.kerb, side.kerb - side.sign * 0.35, 0, FAR)
        _lay(scene, gutter, shade(asphalt, 0.84), ROAD, ASPHALT)
    for _ in range(int(scene.rng.integers(0, 4))):
        x = scene.uniform(left + 1, right - 3)
        z = scene.uniform(5, 30)
        bounds = (x, x + scene.uniform(0.8, 2.2), z, z * scene.uniform(1.1, 1.5))
        _lay(scene, bounds, shade(asphalt, scene.uniform(0.82, 1.12)), ROAD, ASPHALT)
    for _ in range(int(scene.rng.integers(0, 3))):
        _paint_manhole(scene, scene.uniform(left + 1, right - 1), scene.uniform(6, 18))


def _paint_manhole(scene: Scene, x: float, z: float) -> None:
    """An iron cover in its frame."""
    for radius, light in ((0.34, 1.12), (0.3, 0.66), (0.2, 0.76)):
        wide = radius * UNIT * scene.camera.scale(z)
        flat = wide * scene.camera.height / z
        ink = scene.canvas.ink(shade(scene.asphalt, light), ROAD, 0, ASPHALT)
        scene.canvas.disc(scene.camera.project(x, 0, z), (wide, flat), ink)


def _paint_crossing_street(scene: Scene) -> None:
    """The carriageway and pavements of a street that crosses."""
    junction = scene.street.junction
    if junction is None:
        return
    paving = pick_jittered(scene.rng, scene.look.paving)
    for side in scene.street.sides:
        outside = side.kerb + side.sign * BEYOND
        for near, far in ((junction.near - 2.5, junction.near), (junction.far, junction.far + 2.5)):
            _lay(scene, (side.edge, outside, near, far), paving, SIDEWALK, PAVING)
    bounds = (-BEYOND, BEYOND, junction.near, junction.far)
    _lay(scene, bounds, scene.asphalt, ROAD, ASPHALT)


def _paint_markings(scene: Scene) -> None:
    """Lane lines, edge lines, a zebra crossing and rails; all of them are road."""
    color = jitter(scene.rng, pick(scene.rng, scene.look.marking))
    street = scene.street
    middle = (street.ahead_lane + street.oncoming_lane) / 2
    if scene.chance() < 0.75:
        _paint_dashes(scene, middle, color)
    else:
        for offset in (-0.18, 0.06):
            _paint_line(scene, middle + offset, 0.12, color)
    lane = street.ahead_lane - street.oncoming_lane
    for x in (street.oncoming_lane - lane / 2, street.ahead_lane + lane / 2):
        if street.left.kerb + 1 < x < street.right.kerb - 1:
            _paint_dashes(scene, x, color)
    if scene.chance() < 0.5:
        for side in street.sides:
            _paint_line(scene, side.kerb - side.sign * 0.55, 0.12, color)
    if street.rails:
        _paint_rails(scene)
    if street.crossing is not None:
        _paint_zebra(scene, street.crossing, color)


def _paint_line(scene: Scene, x: float, width: float, color: Color) -> None:
    _lay(scene, (x, x + width, 0, 90), color, ROAD, ASPHALT)


def _paint_dashes(scene: Scene, x: float, color: Color) -> None:
    start = scene.nearest_ground + scene.uniform(0.1, 5)
    z = np.arange(start, 80, 8.0)
    sides = np.full_like(z, x)
    _lay_all(scene, np.stack((sides - 0.08, sides + 0.08, z, z + 3.5), axis=1), color)


def _paint_rails(scene: Scene) -> None:
    steel = shade(scene.asphalt, 0.55)
    for lane in (scene.street.ahead_lane, scene.street.oncoming_lane):
        for offset in (-0.72, 0.72):
            _paint_line(scene, lane + offset, 0.13, steel)
            _paint_line(scene, lane + offset + 0.13, 0.05, shade(steel, 1.9))


def _paint_zebra(scene: Scene, z: float, color: Color) -> None:
    """Stripes along the street, side by side from kerb to kerb, and a stop line before them."""
    left, right = scene.street.left.kerb + 0.4, scene.street.right.kerb - 0.4
    _lay(scene, (left, right, z - 0.2, z + 3.2), scene.asphalt, ROAD, ASPHALT)
    x = np.arange(left, right - 0.5, 1.0)
    ends = np.full_like(x, z)
    _lay_all(scene, np.stack((x, x + 0.5, ends, ends + 3.0), axis=1), color)
    lane = (scene.street.ahead_lane + scene.street.oncoming_lane) / 2
    if z > 7:
        _lay(scene, (lane, right, z - 1.6, z - 1.2), color, ROAD, ASPHALT)


def _write_depth(scene: Scene) -> None:
    """The ground's depth follows from its row alone."""
    camera = scene.camera
    first = int(camera.horizon)
    rows = np.arange(first, scene.canvas.size[0]) + 0.5
    z = camera.focal * camera.height / np.maximum(rows - camera.horizon, 0.05)
    codes = (254 * z / (z + HALF_DEPTH_METRES)).astype(np.uint16) << 8
    ground = scene.canvas.pixels[first:, :, 3]
    ground |= codes[:, None]
