"""How sure the difference of two models is: paired bootstrap over blocks of images.

Neighbouring frames of a video resemble each other, so whole sequences are drawn, not images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2sda.errors import UserError
from t2sda.evaluation.confusion import mean_of_present, shares
from t2sda.evaluation.entries import Scores

NUM_RESAMPLES = 10_000
INTERVAL = 0.95
_AT_ONCE = 10_000_000  # numbers in memory


@dataclass(frozen=True)
class Difference:
    """Mean IoU of one model less that of another, as shares of 1.

    Attributes:
        value: on all images.
        low, high: what 95 % of the resamples lie between; NaN of a single block.
        num_blocks: that were drawn from.
    """

    value: float
    low: float
    high: float
    num_blocks: int


def mean_iou_difference(
    scores: Scores, baseline: Scores, pattern: str | None = None, *, seed: int = 0
) -> Difference:
    """`scores` less `baseline` in the mean IoU that is reported, with its 95 % interval.

    Blocks are drawn with replacement, as many as there are, the same for both models; of each
    draw the counts are added up and scored. The interval lies between the percentiles of the
    draws' differences (Efron, 1979; Künsch, 1989, for blocks).

    Args:
        scores, baseline: of the same images.
        pattern: see `blocks_of`.
        seed: of the draws.

    Raises:
        UserError: if they are not of the same images and classes, or the pattern does not fit.
    """
    check_same_images(scores, baseline)
    blocks = blocks_of([image.name for image in scores.images], pattern)
    counts = np.stack([block_counts(own, blocks) for own in (scores, baseline)])
    num_blocks = int(blocks.max()) + 1
    value = differences(counts, np.ones((1, num_blocks), dtype=np.int64))[0]
    low, high = interval_of(differences(counts, block_draws(num_blocks, seed)), num_blocks)
    return Difference(float(value), low, high, num_blocks)


def block_draws(num_blocks: int, seed: int = 0) -> np.ndarray:
    """(NUM_RESAMPLES, B) of the smallest type, how often every resample holds every block."""
    random, shares = np.random.default_rng(seed), np.full(num_blocks, 1 / num_blocks)
    draws = np.empty((NUM_RESAMPLES, num_blocks), dtype=np.min_scalar_type(num_blocks))
    for row in draws:
        row[:] = random.multinomial(num_blocks, shares)
    return draws


def interval_of(drawn: np.ndarray, num_blocks: int) -> tuple[float, float]:
    """What 95 % of the resamples' numbers lie between.

    Args:
        drawn: (R,), NaN where a resample has none.
        num_blocks: that were drawn from.

    Returns:
        NaN and NaN of a single block, which knows no other images, or where no resample has one.
    """
    if num_blocks == 1 or np.isnan(drawn).all():
        return math.nan, math.nan
    outside = (1 - INTERVAL) / 2
    low, high = np.nanquantile(drawn, [outside, 1 - outside])
    return float(low), float(high)


def blocks_of(names: Sequence[str], pattern: str | None) -> np.ndarray:
    """(N,) int64, the number of every image's block.

    Args:
        names: of the images, below their dataset's root.
        pattern: regular expression that is found in every name; names with the same text of its
            first group, or of the whole where it has none, are a block. None: every image is one.

    Raises:
        UserError: if the pattern is none, or is not in a name.
    """
    if pattern is None:
        return np.arange(len(names))
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"blocks '{pattern}': no regular expression ({error})") from None
    group = 1 if expression.groups else 0
    texts = [match and match[group] for match in map(expression.search, names)]
    missing = [name for name, text in zip(names, texts, strict=True) if text is None]
    if missing:
        what = "its first group " if group else ""
        raise UserError(
            f"blocks '{pattern}': {what}not found in {len(missing)} of {len(names)} names, such "
            f"as {missing[0]}; give a regular expression that is in all of them"
        )
    return np.unique([text for text in texts if text is not None], return_inverse=True)[1]


def block_counts(scores: Scores, blocks: np.ndarray) -> np.ndarray:
    """(B, K, 2) int64: intersection and union of the K reported classes in every block."""
    groups = list(scores.group_classes.values()) or [(k,) for k in range(len(scores.classes))]
    rows = [
        np.array([getattr(image, name) for image in scores.images], dtype=np.int64)
        for name in ("true", "predicted", "group_right" if scores.groups else "right")
    ]
    true, predicted = (
        np.stack([counts[:, list(group)].sum(axis=1) for group in groups], axis=1)
        for counts in rows[:2]
    )
    right = rows[2]
    totals = np.zeros((int(blocks.max()) + 1, len(groups), 2), dtype=np.int64)
    np.add.at(totals, blocks, np.stack([right, true + predicted - right], axis=2))
    return totals


def differences(counts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean IoU of the first model less that of the second, of every draw.

    Args:
        counts: (2, B, K, 2), `block_counts` of either.
        draws: (R, B) how often every block is drawn.

    Returns:
        (R,) float64.
    """
    flat = counts.transpose(1, 0, 2, 3).reshape(counts.shape[1], -1).astype(np.float64)
    rows = max(_AT_ONCE // max(flat.shape), 1)
    parts = [
        (draws[begin : begin + rows] @ flat).reshape(-1, 2, *counts.shape[2:])
        for begin in range(0, len(draws), rows)
    ]
    totals = np.concatenate(parts)
    means = mean_of_present(shares(totals[..., 0], totals[..., 1]))
    return means[:, 0] - means[:, 1]


def check_same_images(scores: Scores, baseline: Scores) -> None:
    """Raise UserError unless two scores are of the same images and classes."""
    if scores.dataset != baseline.dataset:
        raise UserError(f"scores of '{scores.dataset}' and of '{baseline.dataset}' are no pair")
    if scores.reported.iou.keys() != baseline.reported.iou.keys():
        raise UserError(
            f"scores on '{scores.dataset}' are of other classes; score both models again"
        )
    pairs = zip(scores.images, baseline.images, strict=False)
    same = all(a.name == b.name and a.true == b.true for a, b in pairs)
    if len(scores.images) != len(baseline.images) or not same:
        raise UserError(
            f"scores on '{scores.dataset}' are of other images or labels ({baseline.num_images} "
            f"and {scores.num_images}); score both models again"
        )
