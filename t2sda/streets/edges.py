"""The edges of the street: rows of houses, walls, fences and parks."""

from __future__ import annotations

import numpy as np

from t2sda.streets.canvas import BRICK, FENCE, GRASS, PLASTER, TERRAIN, WALL, mix, shade, tint
from t2sda.streets.houses import frontal, paint_house, sample_house, upright
from t2sda.streets.looks import pick_jittered
from t2sda.streets.plan import Segment, Side
from t2sda.streets.plants import paint_hedge, paint_tree
from t2sda.streets.scene import Scene


def paint_edge(scene: Scene, side: Side) -> None:
    """One side of the street, from far to near."""
    for segment in reversed(side.segments):
        if not scene.outside(side.edge, segment.far):
            PAINTERS[segment.kind](scene, side, segment)


def _paint_buildings(scene: Scene, side: Side, segment: Segment) -> None:
    """A row of houses that fills the segment."""
    for near, far in pieces(segment.near, segment.far, scene.uniform(6, 12)):
        setback = 0.0 if scene.chance() < 0.75 else scene.uniform(0.5, 2.5)
        paint_house(scene, sample_house(scene, side.sign, side.edge, setback, near, far))


def _paint_garden(scene: Scene, side: Side, segment: Segment) -> None:
    """What stands behind a wall or fence: trees, and now and then a house set back."""
    span = segment.far - segment.near
    if scene.chance() < 0.45:
        near = segment.near + 0.15 * span
        far = segment.far - 0.15 * span
        setback = scene.uniform(6, 12)
        paint_house(scene, sample_house(scene, side.sign, side.edge, setback, near, far))
    for z, _ in pieces(segment.near + 2, segment.far, scene.uniform(5, 9)):
        paint_tree(scene, side.edge + side.sign * scene.uniform(2.5, 6), z, scene.uniform(4, 8))


def _paint_wall_segment(scene: Scene, side: Side, segment: Segment) -> None:
    """A wall with a coping and, if it is long, pillars."""
    _paint_garden(scene, side, segment)
    height = scene.uniform(1.7, 3.4)
    color = pick_jittered(scene.rng, scene.look.walls)
    lit = tint(color, scene.light.facade(side.sign))
    texture = BRICK if scene.chance() < 0.6 else PLASTER
    front = scene.canvas.ink(tint(color, scene.light.front), WALL, segment.near, PLASTER)
    frontal(scene, segment.near, (side.edge, side.edge + side.sign * 0.4, 0, height), front)
    for near, far in _visible_pieces(scene, side, segment, 6.0):
        ink = scene.canvas.ink(lit, WALL, 0.5 * (near + far), texture)
        upright(scene, side.edge, (near, far, 0, height), ink)
        coping = scene.canvas.ink(shade(lit, 1.2), WALL, near)
        upright(scene, side.edge, (near, far, height - 0.18, height), coping)
        foot = scene.canvas.ink(shade(lit, 0.75), WALL, near, texture)
        upright(scene, side.edge, (near, far, 0, 0.25), foot)
        pillar = scene.canvas.ink(shade(lit, 0.9), WALL, near, texture)
        upright(scene, side.edge, (near, near + 0.5, 0, height + 0.15), pillar)


def _visible_pieces(
    scene: Scene, side: Side, segment: Segment, length: float
) -> list[tuple[float, float]]:
    """The segment in pieces of about `length`, from far to near, without those out of view."""
    stretches = pieces(segment.near, segment.far, length)
    return [piece for piece in stretches if not scene.outside(side.edge, piece[1])]


def pieces(near: float, far: float, length: float) -> list[tuple[float, float]]:
    """A stretch in equal pieces of about `length`, from far to near."""
    count = max(1, round((far - near) / length))
    step = (far - near) / count
    return [(near + step * index, near + step * (index + 1)) for index in reversed(range(count))]


def _paint_fence_segment(scene: Scene, side: Side, segment: Segment) -> None:
    """A fence of posts, rails and bars; what shines through its gaps counts as fence."""
    _paint_lawn(scene, side, segment)
    _paint_garden(scene, side, segment)
    height = scene.uniform(1.1, 2.2)
    color = pick_jittered(scene.rng, scene.look.fences)
    lit = tint(color, scene.light.facade(side.sign))
    gaps = mix(shade(lit, 0.45), shade(scene.foliage, 0.7), 0.45)
    step = scene.uniform(0.22, 0.5)
    for near, far in _visible_pieces(scene, side, segment, 5.0):
        middle = 0.5 * (near + far)
        ink = scene.canvas.ink(gaps, FENCE, middle)
        upright(scene, side.edge, (near, far, 0, height - 0.1), ink)
        bars = scene.canvas.ink(lit, FENCE, middle)
        for low in (0.2, height - 0.35):
            upright(scene, side.edge, (near, far, low, low + 0.14), bars)
        scene.canvas.polygons(_bars(scene, side.edge, near, far, step, height), bars)


def _bars(
    scene: Scene, x: float, near: float, far: float, step: float, height: float
) -> np.ndarray:
    """(N, 4, 2) pixels of upright bars; wider apart where they would be finer than pixels."""
    finest = 3.0 * near * near / (scene.camera.focal * abs(x))
    step = max(step, finest)
    z = np.arange(near, far, step)[:, None] + np.array((0, 0.45, 0.45, 0)) * step
    return scene.camera.project_all(x, np.array((0.05, 0.05, height, height)), z)


def _paint_lawn(scene: Scene, side: Side, segment: Segment) -> None:
    """Grass that rises a little behind the street's edge, so that it is seen."""
    color = pick_jittered(scene.rng, scene.look.grass)
    out = side.edge + side.sign * 14
    project = scene.camera.project
    for near, far in _visible_pieces(scene, side, segment, 8.0):
        ink = scene.canvas.ink(color, TERRAIN, 0.5 * (near + far), GRASS)
        corners = (
            project(side.edge, 0, near),
            project(side.edge, 0, far),
            project(out, 1.1, far),
            project(out, 1.1, near),
        )
        scene.canvas.convex(corners, ink)


def _paint_park(scene: Scene, side: Side, segment: Segment) -> None:
    """Lawn, bushes and trees, with a hedge now and then."""
    _paint_lawn(scene, side, segment)
    for z, _ in pieces(segment.near + 1, segment.far, scene.uniform(3.5, 7)):
        paint_tree(scene, side.edge + side.sign * scene.uniform(2, 9), z, scene.uniform(4, 10))
    if scene.chance() < 0.4:
        paint_hedge(scene, side, segment)


PAINTERS = {
    "building": _paint_buildings,
    "wall": _paint_wall_segment,
    "fence": _paint_fence_segment,
    "park": _paint_park,
}
