"""A small network, and photographs in a folder and behind a URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from t2sda.inference import remote
from tests.cli.urls import NAMES, write_png
from tests.tiny_onnx import write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.onnx")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    """What is behind memory://, empty at first; tries follow each other at once."""
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()


@pytest.fixture
def photos(tmp_path: Path, memory: MemoryFileSystem) -> Path:
    """A folder, and the same behind a URL."""
    folder = tmp_path / "street"
    for index, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        memory.pipe_file(f"/street/{name}", write_png(path, 20 + index))
    memory.pipe_file("/street/notes.txt", b"no image")
    (folder / "notes.txt").write_bytes(b"no image")
    return folder
