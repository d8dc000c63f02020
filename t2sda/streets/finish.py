"""From the painted canvas to the image: texture, haze, lamps, lens and sensor."""

from __future__ import annotations

import cv2
import numpy as np

from t2sda.streets.canvas import (
    ASPHALT,
    BRICK,
    FOLIAGE,
    GRASS,
    PAVING,
    PLASTER,
    Camera,
    depth_of_codes,
    mix,
)
from t2sda.streets.looks import pick
from t2sda.streets.scene import Scene
from t2sda.streets.textures import (
    NEUTRAL,
    NOISE_DEVIATION,
    PIXELS_PER_METRE,
    SHEET,
    cut,
    sheets,
)

TEXTURE_RANGE_METRES = 35.0
"""Distance at which a warped texture has lost two thirds of its contrast."""


def finish(scene: Scene) -> np.ndarray:
    """(H, W, 3) uint8 RGB; reads the canvas and leaves it as it is."""
    colors, textures, depth = scene.canvas.layers()
    relief = _relief(scene, textures)
    image = _develop(scene, colors, relief, depth)
    if scene.look.lamps:
        image = _shine(scene, image)
    return _photograph(scene, image)


# Texture


def _relief(scene: Scene, textures: np.ndarray) -> np.ndarray:
    """(H, W) uint8 brightness around NEUTRAL of what every pixel's surface is made of."""
    relief = np.full(scene.canvas.size, NEUTRAL, np.uint8)
    for kind, plane in _planes(scene).items():
        strength = scene.look.texture[kind]
        scaled = cv2.convertScaleAbs(plane, alpha=strength, beta=NEUTRAL * (1 - strength))
        cv2.copyTo(scaled, cv2.inRange(textures, kind, kind), relief)
    return relief


def _planes(scene: Scene) -> dict[int, np.ndarray]:
    """The textures of this image: some cut, some warped onto the ground and the facades."""
    size, rng = scene.canvas.size, scene.rng
    return {
        FOLIAGE: cut(scene.screens.foliage, size, rng),
        GRASS: cut(scene.screens.grass, size, rng),
        PLASTER: cut(scene.screens.plaster, size, rng),
        ASPHALT: _ground_plane(scene, sheets().asphalt),
        PAVING: _ground_plane(scene, sheets().paving),
        BRICK: _brick_plane(scene),
    }


def _ground_plane(scene: Scene, sheet: np.ndarray) -> np.ndarray:
    """(H, W) a sheet that lies on the ground; what is above the horizon has no meaning."""
    plane = np.empty(scene.canvas.size, np.uint8)
    first = int(scene.camera.horizon)
    homography = _ground_homography(scene.camera)
    plane[first:] = _warp(sheet, homography, (0, first), plane[first:].shape)
    return plane


def _brick_plane(scene: Scene) -> np.ndarray:
    """(H, W) bricks of the left row of houses and, from the vanishing point on, the right one."""
    height, width = scene.canvas.size
    plane = np.empty((height, width), np.uint8)
    middle = int(scene.camera.centre)
    for side, (first, end) in zip(scene.street.sides, ((0, middle), (middle, width)), strict=True):
        homography = _facade_homography(scene.camera, side.edge)
        shape = (height, end - first)
        plane[:, first:end] = _warp(sheets().brick, homography, (first, 0), shape)
    return plane


def _warp(
    sheet: np.ndarray, homography: np.ndarray, corner: tuple[int, int], shape: tuple[int, ...]
) -> np.ndarray:
    """The sheet as seen in the window of `shape` whose upper left pixel is `corner`."""
    shift = np.array(((1.0, 0.0, corner[0]), (0.0, 1.0, corner[1]), (0.0, 0.0, 1.0)))
    return cv2.warpPerspective(
        sheet,
        homography @ shift,
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=NEUTRAL,
    )


def _ground_homography(camera: Camera) -> np.ndarray:
    """Pixel -> sheet coordinates of the ground: z = f h / (v - horizon), x = (u - centre) z / f."""
    half = SHEET / 2
    f, h, centre, horizon = camera.focal, camera.height, camera.centre, camera.horizon
    ppm = PIXELS_PER_METRE
    return np.array(
        (
            (ppm * h, half, -ppm * h * centre - half * horizon),
            (0.0, 0.0, ppm * f * h),
            (0.0, 1.0, -horizon),
        )
    )


def _facade_homography(camera: Camera, x: float) -> np.ndarray:
    """Pixel -> sheet coordinates of the upright plane at x.

    z = f x / (u - centre), y = h - (v - horizon) z / f.
    """
    f, h, centre, horizon = camera.focal, camera.height, camera.centre, camera.horizon
    ppm = PIXELS_PER_METRE * 2  # finer than the ground's: bricks are smaller than slabs
    return np.array(
        (
            (0.0, 0.0, ppm * f * x),
            (ppm * (h + 3), -ppm * x, ppm * (x * horizon - (h + 3) * centre)),
            (1.0, 0.0, -centre),
        )
    )


# Air and light


def _develop(
    scene: Scene, colors: list[np.ndarray], relief: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Texture, haze, exposure and color cast; (H, W, 3) uint8."""
    look = scene.look
    haze = mix(*look.haze, scene.chance())
    metres = depth_of_codes()
    seen = np.exp(-metres * scene.uniform(*look.haze_per_metre)).astype(np.float32)
    fade = np.exp(-metres / TEXTURE_RANGE_METRES).astype(np.float32) / NEUTRAL
    clear = cv2.LUT(depth, seen)  # (H, W) share of the light that the haze lets through
    gain = (1 + (relief - np.float32(NEUTRAL)) * cv2.LUT(depth, fade)) * clear
    veil = 1 - clear
    planes = []
    for color, air, curve in zip(colors, haze, _response(scene), strict=True):
        plane = color * gain
        plane += veil * np.float32(air)
        planes.append(cv2.LUT(cv2.convertScaleAbs(plane), curve))
    return cv2.merge(planes)


def _response(scene: Scene) -> np.ndarray:
    """(3, 256) uint8 curves of exposure, gamma and color cast."""
    look = scene.look
    gain = scene.uniform(*look.exposure) * np.array(pick(scene.rng, look.casts))[:, None]
    grey = np.arange(256) / 255
    curves = np.clip(grey * gain, 0, 1) ** scene.uniform(*look.gamma)
    return np.rint(255 * curves).astype(np.uint8)


def _shine(scene: Scene, image: np.ndarray) -> np.ndarray:
    """Halos of the lamps that nothing hides, painted small and blurred."""
    height, width = scene.canvas.size
    small = np.zeros((height // 4, width // 4, 3), np.uint8)
    for lamp in scene.canvas.lamps:
        column, row = int(lamp.column), int(lamp.row)
        inside = 0 <= column < width and 0 <= row < height
        if inside and scene.canvas.pixels[row, column, 3] == lamp.surface:
            radius = round(lamp.radius / 4)
            cv2.circle(small, (column // 4, row // 4), radius, lamp.color, cv2.FILLED)
    sigma = max(height / 160, 0.5)
    near = cv2.GaussianBlur(small, (0, 0), sigma)
    wide = cv2.GaussianBlur(near, (0, 0), 2.5 * sigma)
    strength = scene.look.lamps
    halo = cv2.addWeighted(near, 0.9 * strength, wide, 1.1 * strength, 0)
    return cv2.add(image, cv2.resize(halo, (width, height)))


# Camera


def _photograph(scene: Scene, image: np.ndarray) -> np.ndarray:
    """Lens blur, sensor noise and compression."""
    look, size = scene.look, scene.canvas.size
    sigma = scene.uniform(*look.blur) * max(size[0] / 256, 0.5)
    reach = 2 * int(2 * sigma + 0.5) + 1
    image = cv2.GaussianBlur(image, (reach, reach), sigma)
    noise = cut(scene.screens.sensor, size, scene.rng)
    strength = scene.uniform(*look.noise) / NOISE_DEVIATION
    image = cv2.addWeighted(image, 1, noise, strength, -NEUTRAL * strength)
    if look.jpeg_quality is None:
        return image
    quality = int(scene.rng.integers(*look.jpeg_quality))
    _, code = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
