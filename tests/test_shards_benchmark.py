"""`benchmarks.shards`, on few images."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.shards import measured, table


@pytest.mark.slow  # ten processes
def test_shards_of_which_one_is_killed_make_what_one_process_makes(tmp_path: Path) -> None:
    rows = measured(tmp_path, 330, 3, by_s3=False)
    assert [row.num_files for row in rows] == [333, 333]
    assert len({row.digest for row in rows}) == 1
    assert len(table(rows).splitlines()) == 4
