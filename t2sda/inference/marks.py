"""What makes an overlay readable without its colors, or on a dark image: outlines and numbers."""

from __future__ import annotations

import cv2
import numpy as np

from t2sda.data.taxonomies import Taxonomy

BRIGHTNESS = 160
"""Least luma of an outline."""
PIXELS_PER_LINE = 300
"""The shorter side of an image, for each pixel of an outline's width; at least two."""
LUMA = (0.299, 0.587, 0.114)
DARK, LIGHT = (20, 20, 20), (255, 255, 255)
SMALLEST_SHARE = 1 / 500
"""Of an image's pixels: a region that gets a number."""
SMALLEST_RADIUS, LARGEST_RADIUS = 7.0, 22.0
"""Of the circle that a number is written in, in pixels of an image of PIXELS_PER_SCALE."""
PIXELS_PER_SCALE = 900


def draw_outlines_(drawn: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy) -> None:
    """Draw a line within the border of every region, in a light shade of its class's color.

    A thin dark line between two regions keeps theirs apart on light images.

    Args:
        drawn: (H, W, 3) uint8 RGB, changed.
        labels: (H, W) uint8 train ids; what is no class has no line.
        taxonomy: colors.
    """
    width = max(round(min(labels.shape) / PIXELS_PER_LINE), 2)
    kernel = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
    near_border = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
    chosen = near_border & (labels < taxonomy.num_classes)
    drawn[chosen] = bright_palette(taxonomy)[labels[chosen]]
    between = np.zeros(labels.shape, dtype=bool)
    between[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    between[:-1] |= labels[:-1] != labels[1:]
    drawn[between] = DARK


def bright_palette(taxonomy: Taxonomy) -> np.ndarray:
    """(C, 3) uint8: the taxonomy's colors, mixed with white up to a luma of BRIGHTNESS."""
    colors = np.array(taxonomy.palette, dtype=np.float64)
    luma = colors @ np.array(LUMA)
    share = np.clip((BRIGHTNESS - luma) / (255 - luma).clip(1), 0, 1)[:, None]
    return np.ceil(colors + share * (255 - colors)).clip(0, 255).astype(np.uint8)


def draw_numbers_(drawn: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy) -> None:
    """Write its class's train id into every region that has room for it, light on a dark rim.

    Args:
        drawn: (H, W, 3) uint8 RGB, changed.
        labels: (H, W) uint8 train ids.
        taxonomy: the classes.
    """
    scale = max(min(labels.shape) / PIXELS_PER_SCALE, 0.5)
    for train_id in np.flatnonzero(np.bincount(labels.ravel())[: taxonomy.num_classes]):
        mask = (labels == train_id).view(np.uint8)
        count, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for index in range(1, count):
            left, top, width, height, area = stats[index]
            if area < SMALLEST_SHARE * labels.size:
                continue
            own = regions[top : top + height, left : left + width] == index
            radius, x, y = _widest_place(own)
            if radius >= SMALLEST_RADIUS * scale:
                radius = min(radius, LARGEST_RADIUS * scale)
                _write(drawn, str(train_id), (left + x, top + y), radius)


def _widest_place(region: np.ndarray) -> tuple[float, int, int]:
    """Radius and center (x, y) of the largest circle in a region (H, W) bool."""
    framed = np.pad(region.astype(np.uint8), 1)  # the edge of the image is a border, too
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(distance[row, column]), int(column) - 1, int(row) - 1


def _write(drawn: np.ndarray, text: str, center: tuple[int, int], radius: float) -> None:
    """Text within a circle."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), _ = cv2.getTextSize(text, font, 1.0, 1)
    size = 1.5 * radius / max(width, height)
    corner = round(center[0] - size * width / 2), round(center[1] + size * height / 2)
    thin = max(round(radius / 9), 1)
    for color, thickness in ((DARK, 3 * thin), (LIGHT, thin)):
        cv2.putText(drawn, text, corner, font, size, color, thickness, cv2.LINE_AA)
