"""From a picture of any size to what a network sees of it, and the result back to its size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from t2sda.data.transforms import Resize, resize_image

SMALLEST_SIDE = 32
"""What is smaller is continued by its border: networks halve pictures five times."""


@dataclass(frozen=True)
class Frame:
    """What a network sees of a picture.

    Attributes:
        image: (h, w, 3) uint8 RGB, the picture at the upper left, perhaps with padding below it and
            at its right.
        inner_size: (height, width) of the picture within `image`.
        size: (height, width) of the picture as it was.
    """

    image: np.ndarray
    inner_size: tuple[int, int]
    size: tuple[int, int]

    def labels_back(self, labels: np.ndarray) -> np.ndarray:
        """Train ids (h, w) of the frame -> (H, W) of the picture, by the nearest."""
        height, width = self.inner_size
        return labels_at_size(labels[:height, :width], self.size)

    def logits_back(self, logits: np.ndarray) -> np.ndarray:
        """Logits (C, h, w) of the frame -> (C, H, W) of the picture, bilinearly."""
        height, width = self.inner_size
        inner = logits[:, :height, :width]
        if self.inner_size == self.size:
            return np.ascontiguousarray(inner)
        resized = F.interpolate(
            torch.from_numpy(inner)[None], self.size, mode="bilinear", align_corners=False
        )
        return resized[0].numpy()


def labels_at_size(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Train ids (h, w) -> (H, W), each that of the pixel whose centre is nearest.

    Training's `resize_label` takes the pixel at the upper left, as OpenCV and the baselines do: as
    a result that would be shifted by up to half a pixel.
    """
    if labels.shape == size:
        return labels
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def framed_within(image: np.ndarray, resize: Resize) -> Frame:
    """The whole picture, resized to fit a bound with its ratio kept, as in an evaluation."""
    size = _size_of(image)
    height, width = resize.size_for(size)
    inner_size = max(height, 1), max(width, 1)  # a line of pixels may round to none
    seen = resize_image(image, inner_size)
    below, right = (max(SMALLEST_SIDE - side, 0) for side in inner_size)
    if below or right:
        seen = cv2.copyMakeBorder(seen, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return Frame(seen, inner_size, size)


def framed_to(image: np.ndarray, frame_size: tuple[int, int], fill: tuple[int, ...]) -> Frame:
    """The picture as large as it fits into exactly `frame_size`, the rest in the colour `fill`.

    Stretching would be simpler, but the network has never seen a street stretched.
    """
    size = _size_of(image)
    scale = min(frame_size[0] / size[0], frame_size[1] / size[1])
    inner_size = (
        min(max(round(size[0] * scale), 1), frame_size[0]),
        min(max(round(size[1] * scale), 1), frame_size[1]),
    )
    if inner_size == frame_size:
        return Frame(resize_image(image, inner_size), inner_size, size)
    framed = np.full((*frame_size, 3), fill, dtype=np.uint8)
    framed[: inner_size[0], : inner_size[1]] = resize_image(image, inner_size)
    return Frame(framed, inner_size, size)


def _size_of(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
