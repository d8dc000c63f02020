"""Trees and hedges."""

from __future__ import annotations

import math

from t2sda.streets.canvas import FOLIAGE, PLAIN, VEGETATION, Color, mix, shade, tint
from t2sda.streets.looks import jitter
from t2sda.streets.plan import Segment, Side
from t2sda.streets.scene import Scene

BARK: Color = (92, 74, 58)


def paint_tree(scene: Scene, x: float, z: float, height: float) -> None:
    """A trunk and a crown of overlapping tufts, lighter towards the sun and the top."""
    if scene.outside(x - math.copysign(0.4 * height, x), z):
        return
    stamp = scene.stamp(x, z, VEGETATION)
    green = tint(jitter(scene.rng, scene.foliage, 0.16), scene.light.front)
    bark = tint(BARK, scene.light.front)
    trunk = height * scene.uniform(0.28, 0.42)
    wide = 0.022 * height + 0.05
    stamp.convex(
        ((-wide, 0), (wide, 0), (wide * 0.6, trunk * 1.5), (-wide * 0.6, trunk * 1.5)), bark
    )
    tall = (height - trunk) / 2
    slim = scene.uniform(0.35, 0.6) if scene.chance() < 0.2 else scene.uniform(0.75, 1.05)
    radii = (tall * slim, tall)
    _paint_crown(scene, (x, z), trunk + tall, radii, green)


def _paint_crown(
    scene: Scene,
    place: tuple[float, float],
    middle: float,
    radii: tuple[float, float],
    green: Color,
) -> None:
    stamp = scene.stamp(*place, VEGETATION)
    wide, tall = radii
    stamp.disc(0, middle, (wide * 0.86, tall * 0.86), shade(green, 0.72), FOLIAGE)
    pixels = wide * stamp.detail
    count = 4 + 2 * (pixels > 8) + 4 * (pixels > 20)
    tufts = scene.rng.uniform(-1, 1, (count, 3)).tolist()
    tufts.sort(key=lambda tuft: tuft[1] + 0.4 * scene.light.sun * tuft[0])
    for across, up, size in tufts:
        lift = (up + 0.5 * scene.light.sun * across) / 1.5
        color = shade(green, 0.92 + 0.26 * lift)
        radius = 0.42 + 0.12 * size
        squeeze = (1 - 0.3 * up * up) * 0.68
        centre = (across * wide * squeeze, middle + up * tall * 0.68)
        stamp.disc(*centre, (wide * radius, min(wide, tall) * radius), color, FOLIAGE)


def paint_hedge(scene: Scene, side: Side, segment: Segment) -> None:
    """A clipped hedge along the street's edge."""
    green = mix(scene.foliage, shade(scene.foliage, 0.85), scene.chance())
    height = scene.uniform(0.9, 1.7)
    project, x = scene.camera.project, side.edge
    near, far = segment.near, segment.far
    out = x + side.sign * 1.0
    top = (
        project(x, height, near),
        project(out, height, near),
        project(out, height, far),
        project(x, height, far),
    )
    scene.canvas.convex(top, scene.canvas.ink(shade(green, 1.15), VEGETATION, near, FOLIAGE))
    lit = tint(green, scene.light.facade(side.sign))
    front = (project(x, 0, near), project(x, 0, far), top[3], top[0])
    scene.canvas.convex(front, scene.canvas.ink(lit, VEGETATION, near, FOLIAGE))
    end = (project(x, 0, near), project(out, 0, near), top[1], top[0])
    scene.canvas.convex(end, scene.canvas.ink(shade(green, 0.8), VEGETATION, near, FOLIAGE))
    foot = (project(x, 0, near), project(x, 0, far), project(x, 0.12, far), project(x, 0.12, near))
    scene.canvas.convex(foot, scene.canvas.ink(shade(green, 0.5), VEGETATION, near, PLAIN))
