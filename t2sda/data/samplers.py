"""Which sample comes when: everything follows from the global sample position and the seed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from t2sda.errors import UserError


def sample_generator(seed: int, position: int, consumer: str) -> np.random.Generator:
    """A generator for what `consumer` draws for the sample at the global `position`."""
    text = f"{seed}/{position}/{consumer}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()))


class ShuffledSampler:
    """An endless shuffled sequence of indices: every epoch is a permutation of its own.

    Args:
        length: number of samples.
        seed: of the run.
        consumer: which sequence, so that source and target are shuffled independently.
    """

    def __init__(self, length: int, seed: int, consumer: str) -> None:
        self.length = length
        self.seed = seed
        self.consumer = consumer

    def index_at(self, position: int) -> int:
        """The index that is due at the global sample position."""
        epoch, within = divmod(position, self.length)
        return int(_permutation(self.length, self.seed, epoch, self.consumer)[within])


class MixedSampler:
    """An endless sequence of indices into several sets that are numbered through.

    Without weights it is the shuffled sequence of them all. With weights, the set is drawn at every
    position, and its image is the one that is due there in a shuffled sequence of the set's own: so
    the index follows from the position alone, and every image of a set comes equally often.

    Args:
        lengths: number of samples of every set.
        weights: share of every set, summing to 1; empty: all samples alike.
        seed: of the run.
        consumer: which sequence, so that source and target are drawn independently.
    """

    def __init__(
        self, lengths: Sequence[int], weights: Sequence[float], seed: int, consumer: str
    ) -> None:
        self.seed = seed
        self.consumer = consumer
        self.weights = weights
        self.offsets = [0, *itertools.accumulate(lengths)]
        self.together = ShuffledSampler(sum(lengths), seed, consumer)
        self.apart = [
            ShuffledSampler(length, seed, f"{consumer} {number}")
            for number, length in enumerate(lengths)
        ]

    def index_at(self, position: int) -> int:
        """The index that is due at the global sample position."""
        if not self.weights:
            return self.together.index_at(position)
        generator = sample_generator(self.seed, position, f"{self.consumer} dataset")
        number = int(generator.choice(len(self.weights), p=self.weights))
        return self.offsets[number] + self.apart[number].index_at(position)


@lru_cache(maxsize=16)  # of every sequence, and the epoch before while batches straddle two
def _permutation(length: int, seed: int, epoch: int, consumer: str) -> np.ndarray:
    return sample_generator(seed, epoch, f"{consumer} epoch").permutation(length)


class MicroBatchPositions:
    """Global sample positions of this rank's micro-batches, from any iteration on.

    The samples of a step are numbered through: first by micro-step, then by rank. So iteration i
    sees the same samples whether it is reached fresh or resumed, on one rank or on several.

    Args:
        batch_size: samples per step, over all ranks and micro-steps.
        max_iter: where to stop.
        accumulation: micro-steps per step.
        world_size: number of ranks.
        rank: this one.
        first_iteration: where to start.
    Raises:
        UserError: if a step's samples cannot be shared out evenly.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        max_iter: int,
        accumulation: int = 1,
        world_size: int = 1,
        rank: int = 0,
        first_iteration: int = 0,
    ) -> None:
        shares = accumulation * world_size
        if batch_size % shares:
            raise UserError(
                f"SOLVER.BATCH_SIZE {batch_size} cannot be shared out evenly over "
                f"{world_size} processes x {accumulation} accumulation steps; make it a multiple "
                f"of {shares}"
            )
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.share = batch_size // shares
        self.offset = rank * self.share
        self.iterations = range(first_iteration, max_iter)

    def __iter__(self) -> Iterator[list[int]]:
        per_micro_step = self.batch_size // self.accumulation
        for iteration in self.iterations:
            for micro_step in range(self.accumulation):
                first = iteration * self.batch_size + micro_step * per_micro_step + self.offset
                yield list(range(first, first + self.share))

    def __len__(self) -> int:
        return len(self.iterations) * self.accumulation
