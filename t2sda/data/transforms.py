"""Geometry on image and label together: keep-ratio resize, crop, flip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.errors import UserError

CROP_REDRAWS = 10
"""How often a crop that one class dominates is drawn anew, as in mmsegmentation: 11 draws."""


class Box(NamedTuple):
    """A window of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, array: np.ndarray) -> np.ndarray:
        """The window of (H, W, ...)."""
        rows = slice(self.top, self.top + self.height)
        return array[rows, self.left : self.left + self.width]

    def within(self, outer: Box) -> Box:
        """The same pixels, counted from the image that `outer` is a window of."""
        return Box(outer.top + self.top, outer.left + self.left, self.height, self.width)


def keep_ratio_size(
    size: tuple[int, int], bound: tuple[int, int] | None, factor: float = 1.0
) -> tuple[int, int]:
    """The size (height, width) that fits `bound`, times `factor`; the ratio is kept, sides are
    int(x * s + 0.5).

    Short side is compared with short, long with long, as in the DAFormer family: 1052x1914 within
    720x1280 becomes 704x1280. Without a bound, `factor` alone counts.
    """
    scale = min(max(bound) / max(size), min(bound) / min(size)) if bound else 1.0
    scale *= factor
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize of (H, W, 3) to `size` (height, width)."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest resize of (H, W) to `size`: averaging class ids would invent classes."""
    if label.shape == size:
        return label
    return cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)


def random_box(
    image_size: tuple[int, int], crop_size: tuple[int, int], generator: np.random.Generator
) -> Box:
    """A uniformly drawn window of `crop_size` (height, width) within `image_size`."""
    top = int(generator.integers(image_size[0] - crop_size[0] + 1))
    left = int(generator.integers(image_size[1] - crop_size[1] + 1))
    return Box(top, left, *crop_size)


def random_box_by_label(
    label: np.ndarray,
    crop_size: tuple[int, int],
    max_class_share: float,
    generator: np.random.Generator,
) -> Box:
    """A random window in which no class has more than `max_class_share` of the labelled pixels.

    It is drawn anew up to CROP_REDRAWS times; the last one is taken as it is. With a share of 1 the
    first one is. Only the label is looked at, so no image is decoded for a rejected window.
    """
    box = random_box(label.shape, crop_size, generator)
    if max_class_share >= 1:
        return box
    for _ in range(CROP_REDRAWS):
        if _largest_class_share(box.of(label)) < max_class_share:
            break
        box = random_box(label.shape, crop_size, generator)
    return box


def class_pixels(label: np.ndarray) -> np.ndarray:
    """(IGNORE_INDEX,) float32, the pixels of every train id in (H, W) uint8."""
    # OpenCV counts a window of bytes in place; NumPy would copy it to 64-bit numbers first.
    counts = cv2.calcHist([label], [0], None, [IGNORE_INDEX + 1], [0, IGNORE_INDEX + 1])
    return counts.ravel()[:IGNORE_INDEX]


def _largest_class_share(label: np.ndarray) -> float:
    counts = class_pixels(label)
    total = counts.sum()
    return 1.0 if total == 0 else float(counts.max() / total)


def check_crop_fits(
    image_size: tuple[int, int],
    crop_size: tuple[int, int],
    name: str,
    setting: str,
    window: str = "DATA.CROP_SIZE",
) -> None:
    """Raise UserError if an image (after its resize) is smaller than the crop.

    Args:
        image_size: (height, width) after resizing.
        crop_size: (height, width) of what is cut out.
        name: of the image.
        setting: that resizes it.
        window: the setting of `crop_size`.
    """
    if image_size[0] < crop_size[0] or image_size[1] < crop_size[1]:
        raise UserError(
            f"{name}: {image_size[0]}x{image_size[1]} (height x width, after resizing) is smaller "
            f"than {window} {crop_size[0]}x{crop_size[1]}; make {window} smaller or resize the "
            f"images with {setting}"
        )


@dataclass(frozen=True)
class Resize:
    """Keep-ratio resize to fit `bound` (height, width; None: any size), times `factor`, in one."""

    bound: tuple[int, int] | None
    factor: float = 1.0

    def size_for(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size that an image of `size` gets."""
        return keep_ratio_size(size, self.bound, self.factor)


AS_STORED = Resize(None)
"""Leaves every image as it is."""
