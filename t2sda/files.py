"""Files that are written whole or not at all, and folders that can be written to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from t2sda.errors import UserError

PARTIAL_SUFFIX = ".partial"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields where to write; that file takes the place of `path` when the block ends without error.

    Until then `path` is as it was, whenever the process is killed or the power fails; after an
    error nothing is left behind.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # its folder may be the reason
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def pair_written_whole(file: Path, description: Path) -> Iterator[tuple[Path, Path]]:
    """Yields where to write a file and what describes it; both get their names, or neither.

    Until the block ends without error the old pair is as it was; after an error nothing else is
    left. Whoever is killed later leaves a file without a description, never with another one's.
    """
    partials = tuple(path.with_name(path.name + PARTIAL_SUFFIX) for path in (file, description))
    try:
        yield partials[0], partials[1]
        for partial in partials:
            _sync(partial)
        description.unlink(missing_ok=True)
        _sync(description.parent)
        partials[0].replace(file)
        _sync(file.parent)
        partials[1].replace(description)
        _sync(description.parent)
    finally:
        for partial in partials:
            with contextlib.suppress(OSError):  # its folder may be the reason
                partial.unlink(missing_ok=True)


def make_writable_dir(folder: Path, setting: str) -> None:
    """Create a folder, and find out before the work whether it can be written to.

    Args:
        folder: parents are made as well.
        setting: what to change if it cannot ("--output").
    Raises:
        UserError: if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"  # several ranks may try at once
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}); choose another folder with {setting}"
        ) from None


def check_writable_file(path: Path, setting: str) -> None:
    """Find out before the work whether a file can be written, or an old one overwritten.

    Args:
        path: its folder is made where it is missing.
        setting: what to change if it cannot ("--json").
    Raises:
        UserError: if it cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; {setting} names the file to write")
    if not path.exists():
        make_writable_dir(path.parent, setting)
    elif not os.access(path, os.W_OK):
        raise UserError(f"cannot write to {path}; choose another file with {setting}")


def _sync(path: Path) -> None:
    """Wait until the file, or the folder's list of files, is on the disk (POSIX)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
