"""Shadows on the ground, laid before anything that stands on it is painted."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from t2sda.streets.canvas import SUBPIXEL_BITS, UNIT
from t2sda.streets.scene import Scene

Outline = tuple[tuple[float, float], ...]

EDGE_HEIGHTS = {"building": 9.0, "wall": 2.2, "fence": 0.0, "park": 0.0}


FARTHEST = 50.0
"""Beyond it a shadow is thinner than a pixel."""


def cast_shadows(scene: Scene) -> None:
    """Darken the ground under and beside what stands on it; classes stay as they are."""
    first = int(scene.camera.horizon) + 1
    height, width = scene.canvas.size
    mask = np.zeros((height - first, width), np.uint8)
    outlines = [*_edge_outlines(scene), *_thing_outlines(scene)]
    if not outlines:
        return
    corners = np.array(outlines)  # (N, 4, 2) x and z on the ground
    points = scene.camera.project_all(corners[..., 0], 0.0, corners[..., 1]) - (0, UNIT * first)
    for outline in points.astype(np.int32):
        cv2.fillConvexPoly(mask, outline, 255, cv2.LINE_8, SUBPIXEL_BITS)
    _darken(scene, mask, first)


def _darken(scene: Scene, mask: np.ndarray, first: int) -> None:
    """Soften the mask and multiply the ground with what it leaves of the light."""
    reach = 2 * round(scene.look.shadow_softness * scene.canvas.size[0]) + 1
    mask = cv2.blur(cv2.blur(mask, (reach, reach)), (reach, reach))
    gain = cv2.LUT(mask, (1 - np.arange(256) * scene.light.shadow / 255).astype(np.float32))
    ground = scene.canvas.pixels[first:]
    *colors, surfaces = cv2.split(ground)
    lit = [(color * gain).astype(np.uint16) for color in colors]
    ground[:] = cv2.merge([*lit, surfaces])


def _edge_outlines(scene: Scene) -> Iterator[Outline]:
    """The shadows of houses and walls, if the sun stands behind them."""
    light = scene.light
    for side in scene.street.sides:
        towards_road = max(0.0, light.sun * side.sign)
        for segment in side.segments:
            reach = EDGE_HEIGHTS[segment.kind] * light.shadow_length * towards_road
            if reach < 0.2:
                continue
            near = max(segment.near, scene.nearest_ground)
            far = max(segment.far, near + 0.1)
            inner, slant = side.edge - side.sign * reach, 0.3 * reach
            yield ((side.edge, near), (inner, near + slant), (inner, far + slant), (side.edge, far))


def _thing_outlines(scene: Scene) -> Iterator[Outline]:
    """Darkness under every thing, and its shadow away from the sun."""
    light = scene.light
    for thing in scene.things:
        if thing.z > FARTHEST:
            continue
        near, far = thing.z - 0.08 * thing.length, thing.z + thing.length
        left, right = thing.x - thing.half_width, thing.x + thing.half_width
        yield ((left, near), (right, near), (right, far), (left, far))
        reach = -light.sun * light.shadow_length * thing.height
        start, slant = right if reach > 0 else left, 0.25 * abs(reach)
        end = start + reach
        yield ((start, near), (end, near + slant), (end, far + slant), (start, far))
