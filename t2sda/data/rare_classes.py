"""Rare-class sampling: images of rare classes are drawn more often (docs/fidelity.md, A3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.data.class_statistics import class_frequencies, class_pixels
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.parallel import Progress
from t2sda.data.samplers import sample_generator
from t2sda.errors import UserError

SCHEMA.declare(
    "RARE_CLASSES",
    {
        "ENABLED": Field(
            False, "draw source images by class, rare classes more often, as in DAFormer"
        )
    },
)
SCHEMA.declare(
    "RARE_CLASSES",
    {
        "TEMPERATURE": Field(
            0.01,
            "T of P(c) = softmax((1 - f(c)) / T); a larger one draws the classes more evenly",
            low=0.0,
            exclusive_low=True,
        ),
        "MIN_SHARE": Field(
            0.0,
            "an image is drawn for a class that has a larger share of its pixels; 0: MIN_PIXELS "
            "decides instead",
            low=0.0,
            high=1.0,
        ),
        "CROP_FACTOR": Field(
            0.5,
            "a crop is drawn anew, up to 10 times, until it has more than this times MIN_PIXELS "
            "pixels of the class (or this times MIN_SHARE of the resized image); 0: never",
            low=0.0,
        ),
    },
    when=lambda cfg: cfg.RARE_CLASSES.ENABLED,
    when_text="RARE_CLASSES.ENABLED is true",
)
SCHEMA.declare(
    "RARE_CLASSES",
    {
        "MIN_PIXELS": Field(
            3000,
            "an image is drawn for a class of which it has more pixels, counted before resizing",
            unit="pixels",
            low=0,
        )
    },
    when=lambda cfg: cfg.RARE_CLASSES.ENABLED and not cfg.RARE_CLASSES.MIN_SHARE,
    when_text="RARE_CLASSES.ENABLED is true and RARE_CLASSES.MIN_SHARE is 0",
)


@SCHEMA.check
def a_crop_can_hold_the_wanted_class(cfg: CfgNode) -> str | None:
    """The number of pixels that a crop is drawn anew for is one that it can have."""
    rare = cfg.RARE_CLASSES
    height, width = cfg.DATA.CROP_SIZE
    if not rare.ENABLED or rare.MIN_SHARE or height * width > rare.CROP_FACTOR * rare.MIN_PIXELS:
        return None
    return (
        f"RARE_CLASSES: CROP_FACTOR {rare.CROP_FACTOR} x MIN_PIXELS {rare.MIN_PIXELS} is more than "
        f"the {height * width} pixels of a crop (DATA.CROP_SIZE {height}x{width}); lower one, or "
        f"use MIN_SHARE"
    )


class WantedClass(NamedTuple):
    """What a source crop should hold."""

    train_id: int
    pixels: float
    """More than this many."""


class RareClassDraw(NamedTuple):
    """An image, and the class it was drawn for."""

    image_index: int
    train_id: int


def class_probabilities(frequencies: np.ndarray, temperature: float) -> np.ndarray:
    """P(c) = softmax((1 - f(c)) / T) over the classes that occur (docs/fidelity.md, A3).

    Args:
        frequencies: (C,) shares of the labelled pixels.
        temperature: T.
    Returns:
        (C,) float64 that sums to 1; 0 for a class that never occurs.
    """
    scores = np.where(frequencies > 0, (1 - frequencies) / temperature, -np.inf)
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


class RareClassSampler:
    """Draws a class by P(c), then one of the images that have enough of it.

    Of joined datasets with weights, f(c) and the draw of an image follow the weights.

    Args:
        pixels: (N, C + 1) counts, see `class_pixels`.
        dataset: whose they are, for messages.
        temperature: see `class_probabilities`.
        min_pixels: an image is a candidate for a class of which it has more pixels.
        min_share: the same as a share of the image; where it is not 0 it takes the place of
            `min_pixels`.
        crop_factor: how much of that a crop should hold; 0: any crop will do.
        seed: of the run.
    Raises:
        UserError: if a class occurs, but no image has enough of it; if none occurs.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        dataset: SegmentationDataset,
        *,
        temperature: float,
        min_pixels: int,
        min_share: float,
        crop_factor: float,
        seed: int,
    ) -> None:
        self.min_pixels = min_pixels
        self.min_share = min_share
        self.crop_factor = crop_factor
        self.seed = seed
        shares = dataset.image_shares
        frequencies = class_frequencies(pixels if shares is None else pixels * shares[:, None])
        if not frequencies.any():
            raise UserError(
                f"RARE_CLASSES: no label of dataset '{dataset.name}' has a pixel of any class; see "
                f"`t2sda data check {dataset.name}`"
            )
        self.probabilities = class_probabilities(frequencies, temperature)
        sizes = pixels.sum(axis=1, keepdims=True)  # (N, 1)
        needed = min_share * sizes if min_share else np.full_like(sizes, min_pixels)
        enough = pixels[:, :-1] > needed
        self.candidates = [np.flatnonzero(enough[:, c]) for c in range(enough.shape[1])]
        self.shares = shares
        self._refuse_classes_without_images(pixels, sizes, dataset)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, dataset: SegmentationDataset, progress: Progress
    ) -> RareClassSampler | None:
        """The sampler of DATASETS.SOURCE, or None where all images are drawn alike."""
        if not cfg.RARE_CLASSES.ENABLED:
            return None
        return cls(
            np.concatenate(
                [class_pixels(part, progress, cfg.DATA.ON_ERROR) for part in dataset.members]
            ),
            dataset,
            temperature=cfg.RARE_CLASSES.TEMPERATURE,
            min_pixels=cfg.RARE_CLASSES.MIN_PIXELS,
            min_share=cfg.RARE_CLASSES.MIN_SHARE,
            crop_factor=cfg.RARE_CLASSES.CROP_FACTOR,
            seed=cfg.SEED,
        )

    def draw_at(self, position: int) -> RareClassDraw:
        """The image that is due at the global sample position."""
        generator = sample_generator(self.seed, position, "rare class")
        train_id = int(generator.choice(len(self.probabilities), p=self.probabilities))
        candidates = self.candidates[train_id]
        shares = None
        if self.shares is not None:
            shares = self.shares[candidates] / self.shares[candidates].sum()
        return RareClassDraw(int(generator.choice(candidates, p=shares)), train_id)

    def wanted(self, train_id: int, image_size: tuple[int, int]) -> WantedClass | None:
        """What a crop of a resized image (height, width) should hold; None: anything."""
        if not self.crop_factor:
            return None
        area = image_size[0] * image_size[1]
        return WantedClass(
            train_id, self.crop_factor * (self.min_share * area or float(self.min_pixels))
        )

    def _refuse_classes_without_images(
        self, pixels: np.ndarray, sizes: np.ndarray, dataset: SegmentationDataset
    ) -> None:
        lacking = [
            c
            for c, candidates in enumerate(self.candidates)
            if self.probabilities[c] > 0 and not len(candidates)
        ]
        if not lacking:
            return
        counts = pixels / np.maximum(sizes, 1) if self.min_share else pixels  # 0: left out
        most = {dataset.taxonomy.class_names[c]: counts[:, c].max() for c in lacking}
        shown = ", ".join(f"{name} (at most {value:.2g})" for name, value in most.items())
        setting = "MIN_SHARE" if self.min_share else "MIN_PIXELS"
        unit = "as a share of its pixels" if self.min_share else "pixels"
        raise UserError(
            f"RARE_CLASSES.{setting} {self.min_share or self.min_pixels}: no image of dataset "
            f"'{dataset.name}' has more of these classes, {unit}: {shown}; set it below "
            f"{min(most.values()):.2g}"
            + ("" if self.min_share else ", or use MIN_SHARE, which holds for any image size")
        )
