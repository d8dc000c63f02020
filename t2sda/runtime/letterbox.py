"""From an image of any size to what a network sees of it, and the result back to its size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from t2sda.data.transforms import keep_ratio_size, resize_image

SMALLEST_SIDE = 32
"""What is smaller is continued by its border: networks halve images five times."""

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class Frame:
    """What a network sees of an image.

    Attributes:
        image: (h, w, 3) uint8 RGB, the image at the upper left, perhaps with padding below it and
            at its right.
        inner_size: (height, width) of the image within `image`.
        size: (height, width) of the image as it was.
    """

    image: np.ndarray
    inner_size: Size
    size: Size

    def labels_back(self, labels: np.ndarray) -> np.ndarray:
        """Train ids (h, w) of the frame -> (H, W) of the image, by the nearest."""
        height, width = self.inner_size
        return resize_labels(labels[:height, :width], self.size)

    def maps_back(self, maps: np.ndarray) -> np.ndarray:
        """Logits (C, h, w) of the frame -> (C, H, W) of the image, bilinearly."""
        height, width = self.inner_size
        return resize_maps(maps[:, :height, :width], self.size)


@dataclass(frozen=True)
class Letterbox:
    """How images are brought to a size that a network takes, their ratio kept.

    Attributes:
        size: exactly this; an image is made as large as it fits, and the rest filled. Stretching
            would be simpler, but the network has never seen a street stretched.
        bound: where `size` is None: images are resized to fit it, as in an evaluation; None: they
            stay as they are.
        fill: color of the rest.
        smallest: where `size` is None: what is smaller is continued by its border.
    """

    size: Size | None = None
    bound: Size | None = None
    fill: tuple[int, int, int] = (0, 0, 0)
    smallest: Size = (SMALLEST_SIDE, SMALLEST_SIDE)

    def __call__(self, image: np.ndarray) -> Frame:
        """(H, W, 3) uint8 RGB -> what the network sees of it."""
        return self._within_bound(image) if self.size is None else self._filled(image, self.size)

    def _within_bound(self, image: np.ndarray) -> Frame:
        size = (image.shape[0], image.shape[1])
        height, width = keep_ratio_size(size, self.bound) if self.bound else size
        inner_size = max(height, 1), max(width, 1)  # a line of pixels may round to none
        seen = resize_image(image, inner_size)
        below, right = (
            max(least - side, 0) for least, side in zip(self.smallest, inner_size, strict=True)
        )
        if below or right:
            seen = cv2.copyMakeBorder(seen, 0, below, 0, right, cv2.BORDER_REPLICATE)
        return Frame(seen, inner_size, size)

    def _filled(self, image: np.ndarray, frame_size: Size) -> Frame:
        size = (image.shape[0], image.shape[1])
        scale = min(frame_size[0] / size[0], frame_size[1] / size[1])
        inner_size = (
            min(max(round(size[0] * scale), 1), frame_size[0]),
            min(max(round(size[1] * scale), 1), frame_size[1]),
        )
        if inner_size == frame_size:
            return Frame(resize_image(image, inner_size), inner_size, size)
        framed = np.full((*frame_size, 3), self.fill, dtype=np.uint8)
        framed[: inner_size[0], : inner_size[1]] = resize_image(image, inner_size)
        return Frame(framed, inner_size, size)


def resize_labels(labels: np.ndarray, size: Size) -> np.ndarray:
    """Train ids (h, w) -> (H, W), each that of the pixel whose center is nearest.

    Training's `resize_label` takes the pixel at the upper left, as OpenCV and the baselines do: as
    a result that would be shifted by up to half a pixel.
    """
    if labels.shape == size:
        return labels
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def resize_maps(maps: np.ndarray, size: Size) -> np.ndarray:
    """(C, h, w) float32 -> (C, H, W), bilinearly (torch's `align_corners=False`)."""
    if maps.shape[1:] == size:
        return np.ascontiguousarray(maps)
    resized = np.empty((len(maps), *size), dtype=np.float32)
    for own, given in zip(resized, maps, strict=True):
        cv2.resize(given, size[::-1], dst=own, interpolation=cv2.INTER_LINEAR)
    return resized


def softmax(maps: np.ndarray, axis: int) -> np.ndarray:
    """Of logits, along the axis of the classes."""
    exponents = np.exp(maps - maps.max(axis=axis, keepdims=True))
    return exponents / exponents.sum(axis=axis, keepdims=True)
