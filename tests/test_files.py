"""Files are whole or not there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from t2sda.errors import MissingFileError, UserError
from t2sda.files import (
    LOCK_NAME,
    atomic_pair_writer,
    atomic_writer,
    check_writable_file,
    is_regular_file,
    make_writable_dir,
    mistaken_for,
    only_writer,
    open_regular,
    read_small_file,
    user_path,
)


def test_a_finished_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_writer(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), atomic_writer(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_finished_pair_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file, description = tmp_path / "a", tmp_path / "a.json"
    for path in (file, description):
        path.write_text("old")
    with atomic_pair_writer(file, description) as partials:
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
        atomic_pair_writer(file, description) as partials,
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
        atomic_pair_writer(file, description) as partials,
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


def test_two_writers_of_one_file_never_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_writer(path) as first, atomic_writer(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_where_a_result_goes_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "out" / "a.txt"
    path.parent.mkdir()
    victim.write_text("precious")
    path.symlink_to(victim)
    for name in ("a.txt.partial", ".a.txt.partial"):  # what a name could be guessed to be
        (path.parent / name).symlink_to(victim)
    with atomic_writer(path) as partial:
        partial.write_text("result")
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


def test_results_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_writer(tmp_path / "whole") as partial:
        partial.touch()
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_of_full_length_can_still_be_written(tmp_path: Path) -> None:
    for name in ("a" * 255, "ß" * 127, os.fsdecode(b"\xdf" * 255)):
        with atomic_writer(tmp_path / name) as partial:
            partial.touch()
        assert (tmp_path / name).exists()


HOLDER = """
import os, sys, time
from pathlib import Path
from t2sda.files import only_writer
with only_writer(Path(sys.argv[1]), "--output"):
    child = os.fork() if len(sys.argv) > 2 else None
    if child == 0:
        time.sleep(2)
        os._exit(0)
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("more", [[], ["with a child that outlives it"]])
def test_a_folder_has_one_writer_until_it_ends_however_it_ends(
    tmp_path: Path, more: list[str]
) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        with pytest.raises(UserError, match="another run is writing there.*with --output$"):
            only_writer(tmp_path, "--output").__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with only_writer(tmp_path, "--output"):
            pass


def test_the_writer_of_a_folder_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / ".a.png-x1y2.partial"
    left.mkdir()
    (left / "a.png").touch()
    (tmp_path / ".a-link.partial").symlink_to(tmp_path)
    (tmp_path / "kept.partial").mkdir()
    with only_writer(tmp_path, "--output"):
        names = {path.name for path in tmp_path.iterdir()}
    assert names == {".a-link.partial", "kept.partial", LOCK_NAME}


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="cannot be locked"):
        only_writer(tmp_path, "--output").__enter__()
    assert not (tmp_path / "victim").exists()


@pytest.fixture(params=["pipe", "socket", "folder", "device"])
def not_a_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "x"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
            listener.bind("x")
    elif request.param == "folder":
        path.mkdir()
    else:
        return Path("/dev/zero")
    return path


def test_what_is_no_file_is_refused_at_once(not_a_file: Path) -> None:
    for read in (open_regular, read_small_file):
        with pytest.raises(UserError, match=f"{not_a_file}: "):
            read(not_a_file)
    assert not is_regular_file(not_a_file)
    with pytest.raises(UserError, match="names the file to write"):
        check_writable_file(not_a_file, "--json")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "a/" * 3000, "file/x"])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert not is_regular_file(tmp_path / name)
    with pytest.raises(UserError):
        open_regular(tmp_path / name)
    with pytest.raises(UserError, match="--output"):
        make_writable_dir(tmp_path / name, "--output")
    with pytest.raises(UserError, match="--json"):
        check_writable_file(tmp_path / name / "a", "--json")


def test_a_missing_file_is_said_and_a_huge_text_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        open_regular(tmp_path / "none")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_small_file(tmp_path / "huge")


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\xef\xbb\xbf\r\n <!DocType HTML>", "web page"),
        (b"<HTML>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "XML"),
        (b"\x89PNG", None),
        (b"", None),
    ],
)
def test_what_a_download_went_wrong_left_is_named(beginning: bytes, words: str | None) -> None:
    found = mistaken_for(beginning)
    assert (found is None) if words is None else words in (found or "")


def test_paths_of_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/a", "root") == Path("/home/me/a")
    for text in ("./~root/a", "~nosuchuser/a"):
        assert user_path(text, "root") == Path(text)
    with pytest.raises(UserError, match="root: .* NUL"):
        user_path("a\0b", "root")
