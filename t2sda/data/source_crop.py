"""Which window of a source image is trained on, decided by its label alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from t2sda.data.rare_classes import WantedClass
from t2sda.data.transforms import Box, random_box, random_box_by_label

RARE_CLASS_REDRAWS = 10
"""How often a crop without enough of the wanted class is drawn anew (docs/fidelity.md, A3)."""


class SourceCrop(NamedTuple):
    """A window of the image, and the crop as a window of that window."""

    outer: Box
    inner: Box


def draw_source_crop(
    label: np.ndarray,
    crop_size: tuple[int, int],
    generator: np.random.Generator,
    *,
    outer_size: tuple[int, int] | None,
    max_class_share: float,
    wanted: WantedClass | None,
) -> SourceCrop:
    """A random crop, drawn anew until it has enough of a wanted class.

    Both windows are drawn anew, and what counts is the inner one, which is trained on; the last
    draw is taken as it is (docs/fidelity.md, A3, B25). Neither image nor label is decoded again.

    Args:
        label: (H, W) uint8 train ids of the resized image.
        crop_size: (height, width) of the inner window.
        generator: of this sample.
        outer_size: (height, width) of the window that is translated; None: the whole image.
        max_class_share: see `random_box_by_label`.
        wanted: what the inner window should hold; None: anything.
    """
    for redraws_left in reversed(range(RARE_CLASS_REDRAWS + 1)):
        outer = Box(0, 0, *label.shape)
        if outer_size is not None:
            outer = random_box(label.shape, outer_size, generator)
        inner = random_box_by_label(outer.of(label), crop_size, max_class_share, generator)
        if wanted is None or not redraws_left:
            break
        if np.count_nonzero(inner.of(outer.of(label)) == wanted.train_id) > wanted.pixels:
            break
    return SourceCrop(outer, inner)
