"""The order of samples follows from seed and position alone."""

from __future__ import annotations

import pickle

import pytest

from t2sda.data.samplers import MicroBatchPositions, ShuffledSampler, sample_generator
from t2sda.errors import UserError


def positions(**changes: int) -> list[list[int]]:
    arguments = {
        "batch_size": 8,
        "accumulation": 1,
        "world_size": 1,
        "rank": 0,
        "first_iteration": 0,
        "max_iter": 3,
    }
    return list(MicroBatchPositions(**(arguments | changes)))


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    sampler = ShuffledSampler(10, seed=0, consumer="source")
    epochs = [[sampler.index_at(10 * epoch + i) for i in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_order_does_not_depend_on_what_was_asked_before() -> None:
    forwards, backwards = (ShuffledSampler(7, seed=3, consumer="target") for _ in range(2))
    expected = [forwards.index_at(position) for position in range(50)]
    assert [backwards.index_at(position) for position in reversed(range(50))] == expected[::-1]


def test_source_and_target_are_shuffled_independently() -> None:
    source, target = (ShuffledSampler(30, 0, name) for name in ("source", "target"))
    assert [source.index_at(i) for i in range(30)] != [target.index_at(i) for i in range(30)]


def test_generators_differ_by_seed_position_and_consumer() -> None:
    draws = {
        sample_generator(*arguments).integers(1 << 60)
        for arguments in [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b")]
    }
    assert len(draws) == 4


def test_a_resumed_run_sees_the_same_batches() -> None:
    assert positions(first_iteration=1) == positions()[1:]


def test_ranks_and_micro_steps_share_a_step() -> None:
    whole = positions()
    ranks = [positions(world_size=2, rank=rank) for rank in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole
    micro = positions(accumulation=2)
    assert [micro[2 * i] + micro[2 * i + 1] for i in range(3)] == whole


def test_uneven_shares_are_refused() -> None:
    with pytest.raises(UserError, match="BATCH_SIZE 8 cannot be shared out .* multiple of 6"):
        positions(accumulation=3, world_size=2)


def test_the_order_survives_a_loader_process_that_is_spawned() -> None:
    sampler = ShuffledSampler(10, 0, "source")
    copy = pickle.loads(pickle.dumps(sampler))
    assert [copy.index_at(i) for i in range(25)] == [sampler.index_at(i) for i in range(25)]
