"""Which window of a target image is trained on, by labels that a network made beforehand."""

from __future__ import annotations

import logging

import numpy as np

from t2sda.data.datasets import SegmentationDataset
from t2sda.data.joined import check_same_classes
from t2sda.data.transforms import Box, class_pixels, random_box
from t2sda.errors import UserError

NUM_CANDIDATES = 10
"""Crops that a class-balanced one is chosen from, as in SePiCo."""

logger = logging.getLogger(__name__)


def class_balanced_box(
    label: np.ndarray,
    crop_size: tuple[int, int],
    max_class_share: float,
    generator: np.random.Generator,
) -> Box:
    """Of NUM_CANDIDATES random windows the one with the largest sum of log pixels over its classes.

    Only those count in which the largest class has less than `max_class_share` of the labelled
    pixels; where none does, and among equals, the first is taken: that of a run with random crops.

    Args:
        label: (H, W) uint8 train ids of the resized image; IGNORE_INDEX is no class.
        crop_size: (height, width).
        max_class_share: in (0, 1].
        generator: of this sample.
    """
    boxes = [random_box(label.shape, crop_size, generator) for _ in range(NUM_CANDIDATES)]
    return max(boxes, key=lambda box: _evenness(box.of(label), max_class_share))


def _evenness(label: np.ndarray, max_class_share: float) -> float:
    pixels = class_pixels(label)
    if pixels.max() >= max_class_share * pixels.sum():
        return -np.inf
    return float(np.log(pixels[pixels > 0]).sum())


def check_target_labels(
    source: SegmentationDataset, target: SegmentationDataset | None, *, for_crops: bool
) -> None:
    """Raise UserError unless the target has labels of the source's classes.

    Args:
        source: whose classes they must be of.
        target: None without a target.
        for_crops: whether crops alone are chosen by them; else a pass trains on them.
    """
    reader = "DATA.TARGET_CROP class_balanced" if for_crops else "a pass"
    use = "chooses crops by" if for_crops else "trains on"
    if target is None:
        raise UserError(f"DATASETS.TARGET: empty, but {reader} reads the labels of the target")
    for member in target.members:
        if not member.labelled:
            raise UserError(
                f"DATASETS.TARGET: {reader} reads the labels of the target, but dataset "
                f"'{member.name}' has none; give its `labels`, or make some with `t2sda "
                f"pseudo-label`"
            )
        check_same_classes(source, member, "DATASETS.SOURCE and DATASETS.TARGET")
        if not member.has_made_labels:
            logger.warning(
                "the run %s the true labels of '%s', the target: an oracle; labels made by a "
                "network come from `t2sda pseudo-label`",
                *(use, member.name),
            )
