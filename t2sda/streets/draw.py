"""Draw a street: the plan, then sky, ground, shadows, edges and things, then the finish."""

from __future__ import annotations

import numpy as np

from t2sda.errors import UserError
from t2sda.streets.canvas import Canvas
from t2sda.streets.edges import paint_edge
from t2sda.streets.finish import finish
from t2sda.streets.ground import paint_ground, paint_sky
from t2sda.streets.houses import paint_skyline
from t2sda.streets.looks import LOOKS, Look, pick_jittered, sample_light
from t2sda.streets.plan import sample_street
from t2sda.streets.scene import Scene
from t2sda.streets.shadows import cast_shadows
from t2sda.streets.textures import screens
from t2sda.streets.traffic import populate

DOMAINS: tuple[str, str] = ("clear", "hazy")
"""The domains' names: the source-like one, then the target-like one."""

SMALLEST = 64


def draw_street(
    domain: str, seed: int, index: int, size: tuple[int, int] = (256, 512)
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one street scene with its exact label.

    The same arguments give the same arrays, bit by bit, in any process.

    Args:
        domain: one of DOMAINS; they share the streets' plan and differ in style.
        seed: which series of images.
        index: which image of the series.
        size: (height, width), each at least 64.
    Returns:
        (H, W, 3) uint8 RGB and (H, W) uint8 Cityscapes train ids 0..18; no pixel is unlabelled.
    Raises:
        UserError: (a ValueError) for an unknown domain, a negative seed or index, a small size.
    """
    _check(domain, seed, index, size)
    rng = np.random.default_rng([seed, index, DOMAINS.index(domain)])
    scene = paint_street(LOOKS[domain], size, rng)
    return finish(scene), scene.canvas.label


def paint_street(look: Look, size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """A scene painted on its canvas, before texture, haze and camera."""
    scene = Scene(
        street=sample_street(size, rng),
        look=look,
        light=sample_light(look, rng),
        canvas=Canvas(size),
        screens=screens(size),
        rng=rng,
        asphalt=pick_jittered(rng, look.asphalt),
        foliage=pick_jittered(rng, look.foliage),
    )
    populate(scene)
    paint_sky(scene)
    paint_ground(scene)
    cast_shadows(scene)
    paint_skyline(scene)
    for side in scene.street.sides:
        paint_edge(scene, side)
    for thing in scene.things:
        thing.paint(scene)
    return scene


def _check(domain: str, seed: int, index: int, size: tuple[int, int]) -> None:
    if domain not in DOMAINS:
        raise UserError(f"domain: no street domain is called '{domain}'; known: {DOMAINS}")
    if seed < 0 or index < 0:
        raise UserError(f"seed and index must not be negative, found {seed} and {index}")
    if min(size) < SMALLEST:
        raise UserError(
            f"size: {size[0]}x{size[1]} (height x width) is too small for a street; "
            f"use at least {SMALLEST}x{SMALLEST}"
        )
