"""`t2sda infer` between URLs where files come late, damaged or not at all."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from t2sda.inference import transfer
from t2sda.inference.shares import RECORD_NAME
from t2sda.inference.sources import find_all_sources
from tests.cli.urls import IN, NAMES, OUT, infer, local, stored, write_png

Copy = Callable[[], None]
"""What the file system would have done."""


@contextlib.contextmanager
def replaced(method: str, ours: Callable[[Copy, str, str], None]) -> Iterator[None]:
    """Within it the file system's `get_file` or `put_file` is `ours`, of what, whence and where."""
    real = getattr(MemoryFileSystem, method)

    def copy(files: MemoryFileSystem, first: str, second: str, **options: Any) -> None:
        ours(partial(real, files, first, second, **options), first, second)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, method, copy)
        yield


class Faults:
    """Every file fails in each of some ways before it succeeds."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds
        self.left: dict[str, list[str]] = {}
        self.num_failed = 0

    def __call__(self, copy: Copy, first: str, second: str) -> None:
        key = min(first, second, key=lambda path: "/tmp" in path).rpartition("-")[0] or first
        left = self.left.setdefault(key, list(self.kinds))
        kind = left.pop() if left else ""
        self.num_failed += bool(kind)
        if kind == "500":
            raise OSError(121, "We encountered an internal error. Please try again.")
        if kind == "timeout":
            raise TimeoutError("The read operation timed out")
        copy()
        if kind == "truncated in":
            truncate(Path(second))
        if kind == "truncated out":
            files = fsspec.filesystem("memory")
            files.pipe_file(second, files.cat_file(second)[:-7])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_errors_timeouts_and_truncated_bodies_change_nothing(
    tmp_path: Path,
    model: Path,
    photos: Path,
    memory: MemoryFileSystem,
) -> None:
    assert infer(model, photos, tmp_path / "out") == 0
    get = Faults(["500", "timeout", "truncated in"])
    put = Faults(["500", "timeout", "truncated out"])
    with replaced("get_file", get), replaced("put_file", put):
        assert infer(model, IN, OUT) == 0
    assert get.num_failed == 3 * len(NAMES)
    assert put.num_failed >= 3 * 2 * len(NAMES)
    assert stored(memory) == local(tmp_path / "out")
    assert not memory.glob("/labels/**/.*")  # no upload under another name is left


def test_what_never_comes_is_left_out_and_named(
    model: Path,
    photos: Path,
    memory: MemoryFileSystem,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def get(copy: Copy, url: str, path: str) -> None:
        copy()
        if url.endswith("1.png"):
            truncate(Path(path))
        if url.endswith("0.png"):
            raise FileNotFoundError(url)

    with replaced("get_file", get):
        assert infer(model, IN, OUT) == 3
    shown = capsys.readouterr().err
    assert "2 files were left out:" in shown
    assert "memory://street/0.png: is not there" in shown
    assert "memory://street/bonn/1.png: cannot be read after 5 tries (" in shown
    assert "bytes came)" in shown
    made = stored(memory)
    assert "bonn/2_trainid.png" in made
    assert not [name for name in made if name.startswith(("0_", "bonn/1_"))]
    assert infer(model, IN, OUT, "--resume") == 0
    assert "2 images" in capsys.readouterr().out


def test_a_write_that_is_refused_ends_the_run_and_a_resumed_one_finishes_it(
    tmp_path: Path,
    model: Path,
    photos: Path,
    memory: MemoryFileSystem,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def put(copy: Copy, path: str, url: str) -> None:
        if "bonn" in url and "1_" in url:
            raise PermissionError("Access Denied.")
        copy()

    with replaced("put_file", put):
        assert infer(model, IN, OUT) == 2
    shown = capsys.readouterr().err
    assert "error: memory://labels/bonn/1_" in shown
    assert "cannot be written (Access Denied); credentials come from the environment" in shown
    assert not memory.exists("/labels/classes.json")
    noted = [json.loads(line) for line in memory.cat_file(f"/labels/{RECORD_NAME}").splitlines()]
    assert "bonn/1" not in {line.get("name") for line in noted}
    assert infer(model, IN, OUT, "--resume") == 0
    assert infer(model, photos, tmp_path / "out") == 0
    assert stored(memory) == local(tmp_path / "out")


def test_few_files_wait_on_this_machine(
    tmp_path: Path, model: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_png(tmp_path / "0.png")
    for index in range(40):
        memory.pipe_file(f"/street/{index:02}.png", content)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "waiting"))
    monkeypatch.setattr(transfer.tempfile, "tempdir", None)
    (tmp_path / "waiting").mkdir()
    most = 0

    def get(copy: Copy, url: str, path: str) -> None:
        nonlocal most
        copy()
        with contextlib.suppress(FileNotFoundError):  # one that is done goes meanwhile
            here = (tmp_path / "waiting").rglob("*")
            most = max(most, sum(one.is_file() and one.stat().st_size > 0 for one in here))

    with replaced("get_file", get):
        assert infer(model, IN, OUT) == 0
    # Ahead, in 2 workers and waiting for them, results of the workers, the record.
    assert most <= transfer.AHEAD + 2 * 2 + 2 * 2 + 3
    assert not list((tmp_path / "waiting").iterdir())


def test_downloads_run_ahead_of_the_network(
    model: Path, photos: Path, memory: MemoryFileSystem
) -> None:
    content = memory.cat_file("/street/0.png")
    for index in range(16):
        memory.pipe_file(f"/many/{index}.png", content)

    def get(copy: Copy, url: str, path: str) -> None:
        time.sleep(0.05)
        copy()

    began = time.perf_counter()
    with replaced("get_file", get), transfer.Transfer() as moved:
        folder = moved.inputs(["memory://many"])
        sources = find_all_sources(folder, Path("none")).sources
        for source in moved.ahead(sources):
            with moved.here(source.path):
                assert source.path.read_bytes() == content
            assert source.path.read_bytes() == b""
    assert time.perf_counter() - began < 16 * 0.05  # one after the other
