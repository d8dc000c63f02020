"""Weights and inputs of the records, from names and seeds alone: the same bytes on every machine.

Uniform numbers of numpy's default generator and elementwise float64 arithmetic, rounded to float32
(weights), uint8 (images) and int64 (labels); no matrix product, no torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

SIDE = 256
"""Of a crop, in pixels."""
BATCH_SIZE = 2
NUM_CLASSES = 19
IGNORE_INDEX = 255
THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)
CLASSIFIER_GAIN = 6.0
"""Of the classifier's weights, so that confidences spread over (0, 1)."""


def standard_noise(name: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform noise of mean 0 and variance 1 that follows from `name`."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return (generator.random(tuple(shape)) - 0.5) * np.sqrt(12.0)


def weight(name: str, shape: Sequence[int], salt: str = "") -> np.ndarray:
    """One tensor of a state dict under its published name.

    Args:
        name: such as "backbone.patch_embed1.proj.weight".
        shape: of the tensor.
        salt: put before the name in the seed: "imnet." for the frozen encoder.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(tuple(shape), np.int64)
    noise = standard_noise(salt + name, shape)
    if name.endswith("running_mean") or (name.endswith("bias") and len(shape) == 1):
        value = 0.1 * noise
    elif name.endswith("running_var"):
        value = 1.0 + 0.25 * noise
    elif len(shape) == 1:  # the scale of a norm
        value = 1.0 + 0.1 * noise
    else:
        value = noise / np.sqrt(float(np.prod(shape[1:])))
        if name.endswith("conv_seg.weight") and "attention" not in name:
            value = value * CLASSIFIER_GAIN
    return value.astype(np.float32)


def batch(iteration: int) -> dict[str, np.ndarray]:
    """source_image and target_image (B, H, W, 3) uint8 RGB, source_label (B, H, W) int64."""
    source = [_scene("source", iteration, index) for index in range(BATCH_SIZE)]
    target = [_scene("target", iteration, index) for index in range(BATCH_SIZE)]
    return {
        "source_image": np.stack([image for image, _ in source]),
        "source_label": np.stack([label for _, label in source]),
        "target_image": np.stack([image for image, _ in target]),
    }


def valid_pixels(kind: str) -> np.ndarray:
    """(B, H, W) bool, where pseudo-labels count.

    Args:
        kind: "rows" leaves out 8 at the top and 60 at the bottom of both images; "margins" these
            and 8 columns on either side, of the first image alone.
    """
    valid = np.ones((BATCH_SIZE, SIDE, SIDE), bool)
    images = slice(0, BATCH_SIZE if kind == "rows" else 1)
    valid[images, :8] = valid[images, -60:] = False
    if kind == "margins":
        valid[images, :, :8] = valid[images, :, -8:] = False
    return valid


def probe(array: np.ndarray) -> tuple[float, float, float]:
    """What stands for a tensor: sum, L2 norm and sum of x_i cos(i), in C order, in float64."""
    flat = np.asarray(array, np.float64).ravel()
    return (
        float(flat.sum()),
        float(np.sqrt((flat * flat).sum())),
        float((flat * np.cos(np.arange(flat.size))).sum()),
    )


def _scene(domain: str, iteration: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label: smooth regions of all classes, with light and grain."""
    name = f"{domain}/{iteration}/{index}/"
    is_thing = np.isin(np.arange(NUM_CLASSES), THINGS).astype(np.float64)
    score = _smooth(name + "coarse", NUM_CLASSES, 4) + 0.35 * _smooth(
        name + "fine", NUM_CLASSES, 24
    )
    score = score + 0.2 * is_thing[:, None, None]
    label = score.argmax(axis=0).astype(np.int64)
    palette = 128 + 45 * standard_noise(domain + "/palette", (NUM_CLASSES, 3))
    image = palette[label] + 25 * _smooth(name + "light", 3, 9).transpose(1, 2, 0)
    image = image + 12 * standard_noise(name + "grain", (SIDE, SIDE, 3))
    label[SIDE - 12 - 4 * index :] = IGNORE_INDEX
    label[20:52, 30 + 8 * iteration : 70 + 8 * iteration] = IGNORE_INDEX
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8), label


def _smooth(name: str, channels: int, grid: int) -> np.ndarray:
    """(channels, SIDE, SIDE): noise on a grid, bilinear in between, corners aligned."""
    coarse = standard_noise(name, (channels, grid, grid))
    position = np.arange(SIDE) * ((grid - 1) / (SIDE - 1.0))
    low = np.minimum(position.astype(np.int64), grid - 2)
    part = position - low
    rows = (
        coarse[:, low, :] * (1 - part)[None, :, None] + coarse[:, low + 1, :] * part[None, :, None]
    )
    return rows[:, :, low] * (1 - part)[None, None, :] + rows[:, :, low + 1] * part[None, None, :]
