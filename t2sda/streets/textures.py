"""Textures of surfaces, sky and sensor: drawn once per image size, then only cut and warped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

METRES_PER_SHEET = 64.0
SHEET = 1024
PIXELS_PER_METRE = SHEET / METRES_PER_SHEET
NEUTRAL = 128
"""The grey of a texture that changes nothing."""
NOISE_DEVIATION = 32


@dataclass(frozen=True)
class Sheets:
    """Textures in metres, (SHEET, SHEET) uint8 around NEUTRAL, to be warped onto planes."""

    asphalt: np.ndarray
    paving: np.ndarray
    brick: np.ndarray


@dataclass(frozen=True)
class Screens:
    """Textures in the image plane, each twice as large as the image: cut where chance says.

    (2H, 2W) uint8 around NEUTRAL, but for the clouds.
    """

    foliage: np.ndarray
    grass: np.ndarray
    plaster: np.ndarray
    clouds: np.ndarray
    """(2H, 2W) float32 in [0, 1]."""
    sensor: np.ndarray
    """(2H, 2W, 3) with a standard deviation of NOISE_DEVIATION."""


def _fractal(
    rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int], octaves: int
) -> np.ndarray:
    """Sum of smooth noises, each twice as fine and half as strong; scaled to about [-1, 1]."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        rows = min(cells[0] << octave, size[0])
        columns = min(cells[1] << octave, size[1])
        coarse = rng.standard_normal((rows, columns), np.float32)
        total += cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return np.clip(total / (2.2 * total.std()), -1, 1)


def _joints(rows: float, columns: float, joint: int, running: bool) -> np.ndarray:
    """1 in the joints of a bond of stones `rows` x `columns` sheet pixels large, else 0."""
    y, x = np.mgrid[0:SHEET, 0:SHEET].astype(np.float32)
    course = np.floor(y / rows)
    shifted = x + (course % 2) * columns / 2 if running else x
    return ((y % rows < joint) | (shifted % columns < joint)).astype(np.float32)


def _stones(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Every stone with its own brightness."""
    coarse = rng.uniform(-1, 1, (SHEET // rows, SHEET // columns)).astype(np.float32)
    return cv2.resize(coarse, (SHEET, SHEET), interpolation=cv2.INTER_NEAREST)


def _grey(texture: np.ndarray) -> np.ndarray:
    """[-1, 1] as uint8 around NEUTRAL."""
    return np.rint(np.clip(NEUTRAL + (NEUTRAL - 1) * texture, 0, 255)).astype(np.uint8)


@lru_cache(maxsize=1)
def sheets() -> Sheets:
    """The sheets every image shares."""
    rng = np.random.default_rng(20)
    grit = _fractal(rng, (SHEET, SHEET), (512, 512), 2)
    stains = _fractal(rng, (SHEET, SHEET), (12, 24), 5)
    paving = 0.35 * _stones(rng, 8, 16) + 0.35 * stains - 0.9 * _joints(16, 16, 1, True)
    brick = 0.5 * _stones(rng, 4, 8) + 0.4 * stains - 0.8 * _joints(8, 16, 2, True)
    asphalt = 0.6 * grit + 0.6 * stains
    return Sheets(asphalt=_grey(asphalt), paving=_grey(paving), brick=_grey(brick))


@lru_cache(maxsize=4)
def screens(size: tuple[int, int]) -> Screens:
    """The textures of an image size; their grain is a fraction of it."""
    rng = np.random.default_rng(19)
    double = (2 * size[0], 2 * size[1])
    sensor = rng.standard_normal((*double, 3), np.float32) * (NOISE_DEVIATION / NEUTRAL)
    return Screens(
        foliage=_grey(_fractal(rng, double, (60, 120), 3)),
        grass=_grey(_fractal(rng, double, (128, 128), 3)),
        plaster=_grey(_fractal(rng, double, (16, 32), 5)),
        clouds=np.clip(0.5 + 0.9 * _fractal(rng, double, (10, 8), 5), 0, 1),
        sensor=_grey(sensor),
    )


def cut(texture: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A window of a screen texture at a random place."""
    row = int(rng.integers(texture.shape[0] - size[0]))
    column = int(rng.integers(texture.shape[1] - size[1]))
    return texture[row : row + size[0], column : column + size[1]]
