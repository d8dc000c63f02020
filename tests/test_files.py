"""Files are whole or not there."""

from __future__ import annotations

import contextlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from t2sda.errors import UserError
from t2sda.files import make_writable_dir, written_whole


def test_a_finished_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written_whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), written_whole(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_written_to_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to .*file/run .*--output-dir"):
        make_writable_dir(tmp_path / "file" / "run", "--output-dir")
    make_writable_dir(tmp_path / "a" / "b", "--output")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_many_processes_may_try_the_same_folder(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        folders = [tmp_path / "run"] * 200
        list(pool.map(make_writable_dir, folders, ["--output-dir"] * 200))
    assert list((tmp_path / "run").iterdir()) == []
