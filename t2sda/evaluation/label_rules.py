"""Which pixels get a pseudo-label: one confidence threshold a class, whatever the rule.

A pixel gets the class with the largest p_c / k_c, if p_c is above that class's threshold k_c. The
rules differ in k: 0 (argmax), one number (threshold), or what keeps an equal share of every class's
pixels (cbst: Zou et al., ECCV 2018; Eq. (8) and Algorithm 2 of CRST, ICCV 2019).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.errors import UserError

BINS = 8192
LOWEST, HIGHEST = -6.0, 17.0
"""Log-odds between which confidences are counted: of 1 / 255 classes, and next below 1 in float32.

Bins are even in log-odds: a network that is nearly sure of everything is still distinguished from
itself. Their width, 0.003, is at most 0.0007 in confidence, and 1e-6 above 0.9996.
"""


class ConfidenceHistogram:
    """How confident a network is of the pixels that it predicts as each class.

    Args:
        counts: (C, BINS) int64.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts

    @classmethod
    def empty(cls, num_classes: int) -> ConfidenceHistogram:
        """Without a pixel."""
        return cls(np.zeros((num_classes, BINS), dtype=np.int64))

    def add(self, probs: np.ndarray) -> None:
        """Count an image's (C, H, W) class probabilities."""
        predicted = probs.argmax(axis=0).ravel()
        confidence = probs.max(axis=0).ravel().astype(np.float64)
        with np.errstate(divide="ignore"):
            odds = np.log(confidence) - np.log1p(-confidence)
        place = (np.clip(odds, LOWEST, HIGHEST) - LOWEST) * (BINS / (HIGHEST - LOWEST))
        cell = np.minimum(place.astype(np.int64), BINS - 1)
        self.counts += np.bincount(predicted * BINS + cell, minlength=self.counts.size).reshape(
            self.counts.shape
        )

    def thresholds(self, portion: float) -> np.ndarray:
        """(C,) confidence above which about `portion` of a class's pixels lie.

        The lower edge of the bin that holds the value of rank floor(portion · n), counted from the
        largest; 1 for a class without pixels, as in the published code.
        """
        least = np.ones(len(self.counts))
        for index, counts in enumerate(self.counts):
            total = counts.sum()
            if total:
                rank = min(int(portion * total), total - 1)
                above = np.cumsum(counts[::-1])  # from the highest bin downwards
                cell = BINS - 1 - int(np.searchsorted(above, rank, side="right"))
                least[index] = _confidence(LOWEST + cell * (HIGHEST - LOWEST) / BINS)
        return least


def _confidence(odds: float) -> float:
    return float(1 / (1 + np.exp(-odds)))


class LabelRule(ABC):
    """How thresholds are found.

    Attributes:
        surveys: whether the confidences of all images must be known first.
    """

    surveys: ClassVar[bool] = False

    @abstractmethod
    def thresholds(self, seen: ConfidenceHistogram) -> np.ndarray:
        """(C,) k; `seen` is empty for a rule that surveys nothing."""


@dataclass(frozen=True)
class Argmax(LabelRule):
    """Every pixel has its most probable class."""

    def thresholds(self, seen: ConfidenceHistogram) -> np.ndarray:
        """All 0."""
        return np.zeros(len(seen.counts))


@dataclass(frozen=True)
class Threshold(LabelRule):
    """Pixels that the network is sure of.

    Args:
        threshold: confidence, the same for every class.
    Raises:
        UserError: if it is no confidence that could be reached.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise UserError(
                f"--threshold {self.threshold:g}: no pixel is more confident than 1; give a number "
                f"from 0 to below 1"
            )

    def thresholds(self, seen: ConfidenceHistogram) -> np.ndarray:
        """All alike."""
        return np.full(len(seen.counts), self.threshold)


@dataclass(frozen=True)
class ClassBalanced(LabelRule):
    """The most confident share of every class's pixels.

    Args:
        portion: p, the share.
    Raises:
        UserError: if it is no share.
    """

    surveys: ClassVar[bool] = True
    portion: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.portion <= 1:
            raise UserError(
                f"--portion {self.portion:g}: the share of every class that is labelled; give a "
                f"number above 0, at most 1"
            )

    def thresholds(self, seen: ConfidenceHistogram) -> np.ndarray:
        """Of the histogram."""
        return seen.thresholds(self.portion)


CONSTANTS = ("portion", "threshold")
"""Of rules."""
RULES: dict[str, type[LabelRule]] = {
    "argmax": Argmax,
    "cbst": ClassBalanced,
    "threshold": Threshold,
}


def label_rule(name: str, constants: Mapping[str, float]) -> LabelRule:
    """The rule of RULES with its constants.

    Raises:
        UserError: for a rule that there is not, a constant that it does not have, or a wrong one.
    """
    if name not in RULES:
        raise UserError(f"--rule {name}: there is none; known: {', '.join(RULES)}")
    kind = RULES[name]
    own = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    for constant in constants.keys() - own:
        raise UserError(f"--{constant}: has no effect with --rule {name}; remove it")
    return kind(**constants)


def labels_above(probs: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(C, H, W) class probabilities and (C,) thresholds -> (H, W) uint8 train ids or IGNORE_INDEX.

    A class of low threshold may win over a more probable one: that is what balances classes.
    """
    divisors = np.where(thresholds > 0, thresholds, 1).astype(probs.dtype)
    best = (probs / divisors[:, None, None]).argmax(axis=0)
    own = np.take_along_axis(probs, best[None], axis=0)[0]
    return np.where(own > thresholds[best], best, IGNORE_INDEX).astype(np.uint8)
