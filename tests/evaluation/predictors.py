"""Predictors that are formulas, for whatever scores predictors."""

from __future__ import annotations

import numpy as np

from t2sda.data.taxonomies import Taxonomy
from t2sda.runtime.letterbox import Frame, Letterbox
from t2sda.runtime.predictor import Predictor

FOUR = Taxonomy(
    "four",
    ("sky", "road", "car", "tree"),
    ((0, 0, 255), (128, 64, 128), (0, 0, 142), (0, 128, 0)),
    subsets={"far": (0, 3)},
)
WEIGHTS = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32) / 40


class Formula(Predictor):
    """Logits that are linear in the colors, and depend on where in its window a pixel lies."""

    taxonomy = FOUR
    runtime = "formula"

    def __init__(self, slope: float = 0.05, letterbox: Letterbox | None = None) -> None:
        self.slope = slope
        self.letterbox = letterbox or Letterbox()

    def _labels(self, frames: list[Frame]) -> list[np.ndarray]:
        return [own.argmax(axis=0).astype(np.uint8) for own in self._logits(frames)]

    def _logits(self, frames: list[Frame]) -> list[np.ndarray]:
        return [frame.maps_back(self.formula(frame.image)) for frame in frames]

    def formula(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) -> (4, h, w) float32."""
        maps = np.einsum("cd,hwd->chw", WEIGHTS, image.astype(np.float32))
        height, width = image.shape[:2]
        maps[1] += self.slope * np.arange(height, dtype=np.float32)[:, None]
        maps[2] += self.slope * np.arange(width, dtype=np.float32)
        return maps
