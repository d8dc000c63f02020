"""Numbers of docs/results.md from kept results: means over seeds, differences, share of the gap.

A number of a set of datasets is the mean of the datasets' numbers.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.stored_results import StoredResult
from t2sda.errors import UserError
from t2sda.evaluation.bootstrap import (
    block_counts,
    block_draws,
    check_same_images,
    differences,
    interval_of,
)

draws_of = functools.cache(block_draws)
Blocks = Mapping[str, int]
"""Images that are drawn together, by dataset: so many that follow each other there."""


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation, as shares of 1; NaN of a single seed."""

    mean: float
    deviation: float
    num_seeds: int


@dataclass(frozen=True)
class PairedDifference:
    """Mean IoU of one method less that of another, of the seeds that both have.

    Attributes:
        value: on all images.
        low, high: what 95 % of the resamples of blocks lie between.
        num_seeds: pairs.
    """

    value: float
    low: float
    high: float
    num_seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Of one or more values."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(statistics.mean(values), deviation, len(values))


def mean_iou(runs: Sequence[StoredResult], datasets: Sequence[str]) -> Spread:
    """Over a method's seeds."""
    return spread([statistics.mean(run.scores[name].mean_iou for name in datasets) for run in runs])


def class_iou(runs: Sequence[StoredResult], datasets: Sequence[str], class_name: str) -> Spread:
    """Of one class; datasets in which it is neither there nor predicted do not count."""
    values = []
    for run in runs:
        shares = [run.scores[name].iou[class_name] for name in datasets]
        known = [share for share in shares if share is not None]
        values.append(statistics.mean(known) if known else math.nan)
    return spread(values)


def paired_difference(
    runs: Sequence[StoredResult], others: Sequence[StoredResult], blocks: Blocks
) -> PairedDifference | None:
    """`runs` less `others`; None without a common seed.

    Blocks of every dataset are drawn with replacement, the same for all models and seeds; the
    datasets are drawn independently of each other. The interval is about other images of the same
    places: seeds are averaged, not drawn.

    Raises:
        UserError: if the results are not of the same images.
    """
    by_seed = {run.seed: run for run in others}
    pairs = [(run, by_seed[run.seed]) for run in runs if run.seed in by_seed]
    if not pairs:
        return None
    parts = [
        _drawn(*pair, dataset, length, index)
        for pair in pairs
        for index, (dataset, length) in enumerate(blocks.items())
    ]
    drawn = np.mean([part[1:] for part in parts], axis=0)
    value = float(np.mean([part[0] for part in parts]))
    return PairedDifference(value, *interval_of(drawn, num_blocks=len(drawn)), len(pairs))


def share_of_gap(
    runs: Sequence[StoredResult],
    source_only: Sequence[StoredResult],
    oracle: Sequence[StoredResult],
    datasets: Sequence[str],
) -> float:
    """How much of the way from source-only to the oracle a method goes; NaN where there is none.

    Both are compared with source-only runs of their own seeds, so that a row of one seed does not
    gain or lose by what the others start from.
    """
    gain, gap = (_gain(each, source_only, datasets) for each in (runs, oracle))
    return gain / gap if gap > 0 else math.nan


def _gain(
    runs: Sequence[StoredResult], others: Sequence[StoredResult], datasets: Sequence[str]
) -> float:
    """Mean IoU less that of `others`, of the seeds that both have; NaN without one."""
    seeds = {run.seed for run in runs} & {other.seed for other in others}
    if not seeds:
        return math.nan
    common = [[run for run in each if run.seed in seeds] for each in (runs, others)]
    of_runs, of_others = (mean_iou(each, datasets).mean for each in common)
    return of_runs - of_others


def _drawn(
    run: StoredResult, other: StoredResult, dataset: str, length: int, seed: int
) -> np.ndarray:
    """(1 + R,): the difference on all images, then that of every resample of blocks."""
    pair = [each.scores[dataset].as_scores(dataset) for each in (run, other)]
    check_same_images(*pair)
    blocks = np.arange(pair[0].num_images) // length
    num_blocks = int(blocks[-1]) + 1
    if num_blocks < 2:
        raise UserError(
            f"{dataset}: {length} images a block make a single one; draw fewer together"
        )
    counts = np.stack([block_counts(scores, blocks) for scores in pair])
    whole = np.ones((1, num_blocks), dtype=np.int64)
    return np.concatenate(
        [differences(counts, whole), differences(counts, draws_of(num_blocks, seed))]
    )
