"""What is no regular file is refused at once: reading it might never end."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from t2sda.errors import UnreadableFileError
from t2sda.images import read_header, read_image, read_label, read_samples

READERS = (read_image, read_label, read_samples, read_header)


@pytest.mark.parametrize("read", READERS)
def test_pipes_devices_sockets_and_folders(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.png"))
    for name, what in (
        ("pipe.png", r"a pipe \(FIFO\)"),
        ("zeros.png", "a device"),
        ("folder.png", "a folder"),
        ("s.png", "a socket"),
    ):
        with pytest.raises(UnreadableFileError, match=rf"{name}: is {what}, not a file"):
            read(tmp_path / name)


@pytest.mark.parametrize("read", READERS)
def test_a_file_longer_than_any_image(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no space
    with pytest.raises(UnreadableFileError, match="1099511627776 bytes are more than any image"):
        read(tmp_path / "a.png")


def test_too_many_open_files_are_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Too many open files"):
        read_image(tmp_path / "a.png")
