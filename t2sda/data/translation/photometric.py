"""Translators that need no target image: color jitter, Gaussian blur, and a mix of changes.

Jitter and blur have the values of SimCLR (Chen et al., ICML 2020), docs/fidelity.md, B28.
"""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np
import torch
from fvcore.common.config import CfgNode

from t2sda.losses.augmentation import ColorJitter, current_color_jitter
from t2sda.registry import TRANSLATORS

JITTER_PROBABILITY = 0.8
JITTER_STRENGTH = 0.8
HUE_STRENGTH = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)
GAMMA = 1.5
"""A channel's gamma is drawn between 1 / GAMMA and GAMMA, log-uniformly."""
NOISE_SIGMA = 12.0
"""Largest standard deviation of added noise, on the scale of [0, 255]."""
CHANGE_PROBABILITY = 0.5


@TRANSLATORS.register("ColorJitter")
class ColorJitterTranslator:
    """SimCLR's color jitter: brightness, contrast, saturation 0.8, hue 0.2, in 80 % of images."""

    needs_target: ClassVar[bool] = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ColorJitterTranslator:
        """It has no settings."""
        return cls()

    def __call__(
        self, image: np.ndarray, style: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 -> (H, W, 3) float32 in [0, 255]."""
        image = image.astype(np.float32)
        return jittered(image, generator) if generator.random() < JITTER_PROBABILITY else image


@TRANSLATORS.register("GaussianBlur")
class GaussianBlurTranslator:
    """SimCLR's blur: σ from U(0.1, 2), a kernel of a tenth of the height, in 50 % of images."""

    needs_target: ClassVar[bool] = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> GaussianBlurTranslator:
        """It has no settings."""
        return cls()

    def __call__(
        self, image: np.ndarray, style: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 -> (H, W, 3) float32 in [0, 255]."""
        image = image.astype(np.float32)
        return blurred(image, generator) if generator.random() < BLUR_PROBABILITY else image


@TRANSLATORS.register("PhotometricMix")
class PhotometricMixTranslator:
    """Jitter, gamma of each channel, blur and noise, each in half of the images, in random order.

    For domain generalisation: a wide spread of looks instead of one target's.
    """

    needs_target: ClassVar[bool] = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> PhotometricMixTranslator:
        """It has no settings."""
        return cls()

    def __call__(
        self, image: np.ndarray, style: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 -> (H, W, 3) float32; noise may leave [0, 255]."""
        image = image.astype(np.float32)
        changes = (jittered, with_channel_gammas, blurred, with_noise)
        for index in generator.permutation(len(changes)):
            if generator.random() < CHANGE_PROBABILITY:
                image = changes[index](image, generator)
        return image


def jittered(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue in random order; (H, W, 3) float32 in [0, 255]."""
    strengths = np.array([JITTER_STRENGTH, JITTER_STRENGTH, JITTER_STRENGTH, HUE_STRENGTH])
    brightness, contrast, saturation, hue = (strengths * generator.uniform(-1, 1, 4)).tolist()
    order = [ColorJitter.order[index] for index in generator.permutation(4)]
    jitter = ColorJitter(brightness, 1 + contrast, 1 + saturation, hue, tuple(order))
    planes = torch.from_numpy(image.clip(0, 255)).permute(2, 0, 1)
    return current_color_jitter(planes, jitter).permute(1, 2, 0).contiguous().numpy()


def blurred(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Gaussian blur of a random σ; (H, W, 3) float32.

    Beyond four σ a kernel adds nothing, so it is no wider than that.
    """
    sigma = generator.uniform(*BLUR_SIGMA)
    reach = min(max(image.shape[0] // 20, 1), math.ceil(4 * sigma))
    kernel = (2 * reach + 1, 2 * reach + 1)
    return cv2.GaussianBlur(image, kernel, sigma, borderType=cv2.BORDER_REFLECT_101)


def with_channel_gammas(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Every channel to a power of its own: another sensor, another light; (H, W, 3) float32."""
    gammas = GAMMA ** generator.uniform(-1, 1, 3)
    return (255 * (image.clip(0, 255) / 255) ** gammas).astype(np.float32)


def with_noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Gaussian noise of a random strength, drawn for every pixel and channel; (H, W, 3) float32."""
    sigma = generator.uniform(0, NOISE_SIGMA)
    return image + np.float32(sigma) * generator.standard_normal(image.shape, dtype=np.float32)
