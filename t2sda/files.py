"""Files that are written whole or not at all, folders with one writer, and what may be read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from t2sda.errors import MissingFileError, NameTooLongError, UserError

logger = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".partial"
LOCK_NAME = ".t2sda.lock"
"""Lies in a folder that a run writes to; after a kill it stays, and what counts is who holds it."""
MAX_TEXT_BYTES = 1 << 20
"""Of a file that people write: a configuration, a dataset, a list."""
_NAME_SHARE = 32  # characters of a file's name in its folder's; names have a limit

_MISTAKEN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"<!doctype html", "a web page, not the file itself; download it again"),
    (b"<html", "a web page, not the file itself; download it again"),
    (b"<?xml", "an XML document, perhaps a server's error message; download it again"),
)


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[Path]:
    """Yields where to write; that file takes the place of `path` when the block ends without error.

    Until then `path` is as it was, whenever the process is killed or the power fails; after an
    error nothing is left behind. It is written in a folder of its own with a name that nobody can
    guess, so no other process meets it, and no link is followed.
    """
    with _own_folder(path) as folder:
        partial = folder / path.name
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)


@contextlib.contextmanager
def atomic_pair_writer(file: Path, description: Path) -> Iterator[tuple[Path, Path]]:
    """Yields where to write a file and what describes it; both get their names, or neither.

    Until the block ends without error the old pair is as it was; after an error nothing else is
    left. Whoever is killed later leaves a file without a description, never with another one's.
    """
    with _own_folder(file) as folder:
        partials = folder / file.name, folder / description.name
        yield partials
        for partial in partials:
            _sync(partial)
        description.unlink(missing_ok=True)
        _sync(description.parent)
        partials[0].replace(file)
        _sync(file.parent)
        partials[1].replace(description)
        _sync(description.parent)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file, text as UTF-8; `path` is the old one or the whole new one.

    Raises:
        NameTooLongError: if the path is longer than the system takes.
        UserError: if it cannot be written for another reason.
    """
    # Names that are not UTF-8 are in text as lone surrogates.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """What is said of a file that `atomic_writer` could not write."""
    kind = NameTooLongError if error.errno == errno.ENAMETOOLONG else UserError
    return kind(f"{path}: cannot be written ({reason(error)}); finished files are whole")


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that every reader takes: what is NaN or infinite becomes null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def remove_partials(folders: Iterable[Path]) -> None:
    """Remove what killed processes left half-written in folders that nobody else writes to."""
    for folder in folders:
        with contextlib.suppress(OSError):  # a folder that cannot be listed holds none of ours
            for partial in folder.glob(f".*-*{PARTIAL_SUFFIX}"):
                if partial.is_dir() and not partial.is_symlink():
                    shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def only_writer(folder: Path, setting: str) -> Iterator[None]:
    """Keep other processes from writing to `folder` until the block ends, or this process.

    What killed processes left half-written there is removed.

    Args:
        folder: is made where it is missing.
        setting: what to change if another run is there ("--output").
    Raises:
        UserError: if another process holds it, or it cannot be written to.
    """
    make_writable_dir(folder, setting)
    path = folder / LOCK_NAME
    busy = UserError(
        f"{folder}: another run is writing there; wait until it has ended, or choose another "
        f"folder with {setting}"
    )
    name = os.path.realpath(path)
    if name in _held:
        raise busy
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be locked ({reason(error)}); choose another folder with {setting}"
        ) from None
    try:
        if not _locked(descriptor, path):
            raise busy
        _held.add(name)
        try:
            remove_partials([folder])
            yield
        finally:
            _held.remove(name)
            path.unlink(missing_ok=True)  # while it is held: nobody else's
    finally:
        os.close(descriptor)


_held: set[str] = set()
"""Lock files of this process, which the system lets it lock as often as it likes."""


def is_written_to(folder: Path) -> bool:
    """Whether a run holds the lock of `only_writer` on a folder."""
    path = folder / LOCK_NAME
    if os.path.realpath(path) in _held:  # closing the file would give the lock back
        return True
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _locked(descriptor: int, path: Path) -> bool:
    """Lock an open file for this process alone: the system takes it back however the process ends.

    The lock is not inherited, so child processes that outlive their parent hold nothing.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        logger.warning(
            "%s: this file system has no locks (%s); see to it that no other run writes there",
            path.parent,
            reason(error),
        )
        return True
    try:  # whoever held it before may have removed the file in between
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


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
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # a ValueError for a NUL character
        raise UserError(
            f"cannot write to {folder} ({reason(error)}); choose another folder with {setting}"
        ) from None


def check_writable_file(path: Path, setting: str) -> None:
    """Find out before the work whether a file can be written, or an old one overwritten.

    Args:
        path: its folder is made where it is missing.
        setting: what to change if it cannot ("--json").
    Raises:
        UserError: if it cannot be written.
    """
    if is_folder(path):
        raise UserError(f"{path}: is a folder; {setting} names the file to write")
    if not os.path.lexists(path):
        make_writable_dir(path.parent, setting)
    elif not is_regular_file(path):
        raise UserError(f"{path}: is {_kind_of(path)}; {setting} names the file to write")
    elif not os.access(path, os.W_OK):
        raise UserError(f"cannot write to {path}; choose another file with {setting}")


def is_regular_file(path: Path) -> bool:
    """Whether there is a file that can be read to an end: no folder, pipe or device.

    Unlike `Path.is_file` it never raises: what cannot be looked at is none.
    """
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether there is a folder; never raises, as `is_regular_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def subfolders(path: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name; none where it cannot be listed."""
    try:
        return sorted(
            path / entry.name
            for entry in os.scandir(path)
            if not entry.name.startswith(".") and entry.is_dir()
        )
    except (OSError, ValueError):
        return []


def is_missing(path: Path) -> bool:
    """Whether there is certainly nothing; not known where a folder may not be entered."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, if reading it comes to an end.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is a folder, a pipe, a device or a socket, or cannot be opened.
    """
    try:
        # Not to wait for whoever writes into a pipe; no effect on a file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UserError(f"{path}: is {_kind(mode)}, not a file")
    return os.fdopen(descriptor, "rb")


def read_small_file(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a file of at most `limit` bytes, by default what a person may have written.

    Raises what `open_regular` does, and UserError for a larger file.
    """
    with open_regular(path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    if len(content) > limit:
        raise UserError(f"{path}: larger than {limit >> 20} MiB; is it the right file?")
    return content


def mistaken_for(beginning: bytes) -> str | None:
    """What a file is that stands where another one was meant, and what to do; None if unknown.

    Args:
        beginning: some hundred bytes.
    """
    start = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((text for mark, text in _MISTAKEN if start.startswith(mark)), None)


def user_path(text: str, setting: str) -> Path:
    """A path as a person writes it; as in a shell, `~` is the home folder where there is one.

    Args:
        text: the path.
        setting: where it comes from, for the message.
    Raises:
        UserError: if the text holds a NUL character.
    """
    if "\0" in text:
        raise UserError(f"{setting}: {text!r} holds a NUL character, which no path can")
    return Path(os.path.expanduser(text))  # noqa: PTH111  (Path's raises for an unknown user)


def reason(error: BaseException) -> str:
    """Why the system refused, in its own words."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that nobody else can enter; it is removed with what is in it."""
    folder = Path(
        tempfile.mkdtemp(PARTIAL_SUFFIX, prefix=f".{path.name[:_NAME_SHARE]}-", dir=path.parent)
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kind_of(path: Path) -> str:
    try:
        return _kind(path.stat().st_mode)
    except OSError as error:
        return f"not accessible ({error.strerror})"


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for asks, name in kinds if asks(mode)), "no plain file")


def _sync(path: Path) -> None:
    """Wait until the file, or the folder's list of files, is on the disk (POSIX)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
