"""Image translation T(x^s): what makes a pseudo-target image out of a source image."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.registry import TRANSLATORS

SCHEMA.declare(
    "TRANSLATION",
    {"NAME": Field("", "translator that makes pseudo-target images of source images; empty: none")},
)


class Translator(Protocol):
    """Restyles a source image; runs in a loader worker, before cropping and flipping.

    Attributes:
        needs_target: whether `style` is a target image; without it the style argument is None.
    """

    needs_target: ClassVar[bool]

    def __call__(
        self, image: np.ndarray, style: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 source and (H, W, 3) uint8 target -> (H, W, 3) float32, unclipped."""


def build_translator(cfg: CfgNode) -> Translator | None:
    """The translator that the configuration names, or None."""
    if not cfg.TRANSLATION.NAME:
        return None
    return TRANSLATORS.get(cfg.TRANSLATION.NAME).from_config(cfg)
