"""Augmentations by name: of the images of passes on the target, and of labelled ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.distributed import own_share, world_size
from t2sda.errors import UserError
from t2sda.losses.augmentation import Augmentation as Drawn
from t2sda.losses.augmentation import (
    AugmentationSettings,
    ColorJitter,
    augment,
    draw_augmentations,
    draw_photometric,
    photometric_distortion,
)
from t2sda.registry import AUGMENTATIONS
from t2sda.structures import Step

JITTER_AND_BLUR = "jitter_and_blur"


class Augmentation(ABC):
    """Changes the colors of images, never where things are: labels stay as they were."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        """Read its settings, if it has some."""
        return cls()

    @abstractmethod
    def draw(self, num_images: int, generator: Any) -> Sequence[Any]:
        """What is done to every image of the mini-batch, those of other ranks too.

        Args:
            num_images: of all ranks.
            generator: a `torch.Generator` on the CPU; nothing else may be drawn from.
        """

    @abstractmethod
    def apply(self, image: Tensor, drawn: Sequence[Any]) -> Tensor:
        """(b, 3, H, W) float RGB in [0, 255] and what was drawn for each -> likewise."""


def augmented(image: Tensor, augmentation: Augmentation, step: Step, consumer: str) -> Tensor:
    """The images of this rank, changed by what is drawn for those of all ranks.

    Args:
        image: (b, 3, H, W) in [0, 255].
        augmentation: what is done.
        step: has the streams of random numbers.
        consumer: name of the stream, so that no two passes draw alike.
    Raises:
        UserError: if the augmentation gives another shape.
    """
    generator = step.streams.generator(consumer)
    drawn = augmentation.draw(len(image) * world_size(), generator)
    changed = augmentation.apply(image.float(), drawn[own_share(len(image))])
    if changed.shape != image.shape:
        raise UserError(
            f"{type(augmentation).__name__} made {tuple(changed.shape)} of images of "
            f"{tuple(image.shape)}; an augmentation must keep their shape"
        )
    return changed


@AUGMENTATIONS.register(JITTER_AND_BLUR)
class JitterAndBlur(Augmentation):
    """Color jitter and blur (docs/fidelity.md, A2).

    Args:
        settings: kind, probabilities and strength.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        self.settings = settings

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        """Read STRONG_AUGMENTATION."""
        settings = AugmentationSettings(
            jitter_kind=cfg.STRONG_AUGMENTATION.JITTER_KIND,
            jitter_probability=cfg.STRONG_AUGMENTATION.JITTER_PROBABILITY,
            jitter_strength=cfg.STRONG_AUGMENTATION.JITTER_STRENGTH,
            blur_probability=cfg.STRONG_AUGMENTATION.BLUR_PROBABILITY,
        )
        return cls(settings)

    def draw(self, num_images: int, generator: Any) -> list[Drawn]:
        """As `draw_augmentations`."""
        return draw_augmentations(num_images, generator, self.settings)

    def apply(self, image: Tensor, drawn: Sequence[Drawn]) -> Tensor:
        """As `augment`."""
        return augment(image, drawn)


@AUGMENTATIONS.register("photometric")
class Photometric(Augmentation):
    """PhotoMetricDistortion of mmsegmentation (docs/fidelity.md, E6)."""

    def draw(self, num_images: int, generator: Any) -> list[ColorJitter]:
        """As `draw_photometric`."""
        return draw_photometric(num_images, generator)

    def apply(self, image: Tensor, drawn: Sequence[ColorJitter]) -> Tensor:
        """As `photometric_distortion`."""
        return photometric_distortion(image, drawn)
