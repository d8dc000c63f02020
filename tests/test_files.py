"""Files are whole or not there."""

from __future__ import annotations

import contextlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from t2sda.errors import UserError
from t2sda.files import make_writable_dir, pair_written_whole, written_whole


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


def test_a_finished_pair_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file, description = tmp_path / "a", tmp_path / "a.json"
    for path in (file, description):
        path.write_text("old")
    with pair_written_whole(file, description) as partials:
        for partial in partials:
            partial.write_text("new")
        assert (file.read_text(), description.read_text()) == ("old", "old")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "new",
        "a.json": "new",
    }


@pytest.mark.parametrize("num_written", [0, 1])
def test_an_error_leaves_the_old_pair_and_nothing_else(tmp_path: Path, num_written: int) -> None:
    file, description = tmp_path / "a", tmp_path / "a.json"
    for path in (file, description):
        path.write_text("old")
    with (
        contextlib.suppress(FileNotFoundError),
        pair_written_whole(file, description) as partials,
    ):
        for partial in partials[:num_written]:
            partial.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "old",
        "a.json": "old",
    }


@pytest.mark.parametrize(("num_renamed", "content"), [(0, "old"), (1, "new")])
def test_whoever_is_killed_between_the_renames_leaves_no_wrong_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_renamed: int, content: str
) -> None:
    file, description = tmp_path / "a", tmp_path / "a.json"
    for path in (file, description):
        path.write_text("old")
    renamed: list[Path] = []
    replace = Path.replace

    def replace_or_die(path: Path, target: Path) -> Path:
        if len(renamed) == num_renamed:
            raise KeyboardInterrupt
        renamed.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_or_die)
    with (
        contextlib.suppress(KeyboardInterrupt),
        pair_written_whole(file, description) as partials,
    ):
        for partial in partials:
            partial.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": content}


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
