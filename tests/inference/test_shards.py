"""Which shard takes what, and where its number comes from."""

from __future__ import annotations

import pytest

from t2sda.errors import UserError
from t2sda.inference.shards import Shard, shard_called

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "4"}
POD = {"JOB_COMPLETION_INDEX": "0"}


def test_every_image_is_taken_by_exactly_one_shard_and_shares_are_even() -> None:
    names = [f"bonn/{index:06}" for index in range(3000)]
    shards = [Shard(index, 3) for index in (1, 2, 3)]
    taken = [[name for name in names if shard.takes(name)] for shard in shards]
    assert sorted(name for own in taken for name in own) == names
    assert all(900 < len(own) < 1100 for own in taken)


@pytest.mark.parametrize(
    ("text", "environment", "found"),
    [
        ("2/3", {}, (2, 3)),
        ("2/3", SLURM, (2, 3)),
        ("", SLURM, (3, 4)),
        ("/4", SLURM, (3, 4)),
        ("/9", {**SLURM, "SLURM_ARRAY_TASK_COUNT": ""}, (3, 9)),
        ("", {**SLURM, "SLURM_ARRAY_TASK_STEP": "2"}, (2, 4)),
        ("/3", POD, (1, 3)),
    ],
)
def test_the_number_is_written_or_in_the_environment(
    text: str, environment: dict[str, str], found: tuple[int, int]
) -> None:
    assert shard_called(text, environment) == Shard(*found)


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("0/3", {}, "I goes from 1 to N"),
        ("4/3", {}, "I goes from 1 to N"),
        ("1/0", {}, "I goes from 1 to N"),
        ("a/3", {}, "write I/N"),
        ("3", {}, "write I/N"),
        ("", {}, "I of I/N is not known"),
        ("/3", {}, "I of I/N is not known"),
        ("", POD, "N of I/N is not known"),
        ("/2", {"JOB_COMPLETION_INDEX": "2"}, "3/2"),
        ("/9", SLURM, r"4 tasks, not 9.* write I, such as \$SLURM_ARRAY_TASK_ID/9"),
        ("1/" + "9" * 5000, {}, "write I/N"),
    ],
)
def test_what_is_no_shard_is_said(text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        shard_called(text, environment)
