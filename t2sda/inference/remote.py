"""Files behind URLs, by fsspec: whole or not there, and tried again where that may help.

fsspec knows the file systems and takes endpoints and credentials from its own environment. What it
raises differs with each of them, so every error that passes here becomes one of ours.
"""

from __future__ import annotations

import contextlib
import errno
import random
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from t2sda.errors import MissingFileError, UnreadableFileError, UserError
from t2sda.files import PARTIAL_SUFFIX, reason

TRIES = 5
FIRST_WAIT = 0.5
"""Seconds before the second try; twice as many before each further one."""
LONGEST_SILENCE, SLOWEST = 120.0, 100_000
"""Seconds, and further ones for so many bytes each: a transfer that takes longer hangs."""
WRITTEN = "written"
WHOLE_UPLOADS = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "ossfs", "tos", "obs")
)
"""Object stores: an object is there when its upload is complete, and renaming would copy it."""
WILDCARD_LETTERS = frozenset("*?[")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
_HERE = ("file", "local")
_NOT_AGAIN = (
    *(FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError),
    *(NotImplementedError, ValueError),
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_STAMPS = (
    *("ETag", "etag", "md5Hash", "md5", "checksum"),
    *("LastModified", "last_modified", "mtime", "modified", "created"),
)
"""What file systems call a file's state, the surest first."""
_CREDENTIALS = "; credentials come from the environment, see docs/nodes.md"
_SETTINGS = "; it comes from the environment, as in FSSPEC_{}_HOST, see docs/nodes.md"

Result = TypeVar("Result")


class RemoteFile(NamedTuple):
    """A file as a listing has it."""

    url: str
    size: int | None
    """None: the server does not say."""
    stamp: str
    """Changes with the content; empty where the server reports the size alone."""


class NotThereError(MissingFileError):
    """Nothing is behind a URL."""


def is_url(text: str) -> bool:
    """Whether it is `scheme://…`, not a path of this machine."""
    return _URL.fullmatch(text) is not None


def scheme_of(url: str) -> str:
    """Of `scheme://…`, in lower case."""
    found = _URL.fullmatch(url)
    assert found is not None, url
    return found[1].lower()


class Store:
    """The file system of a scheme.

    Args:
        scheme: as fsspec has it, such as s3.

    Raises:
        UserError: if there is none, or a package is missing.
    """

    def __init__(self, scheme: str) -> None:
        if scheme in _HERE:
            raise UserError(f"{scheme}://: is this machine; write the path alone")
        try:
            import fsspec
        except ImportError:
            raise UserError(
                f"{scheme}://: needs the package fsspec; pip install 't2sda[cloud]'"
            ) from None
        try:
            self._files = fsspec.filesystem(scheme, skip_instance_cache=True)
        except ImportError as error:
            extra = "; pip install 't2sda[cloud]'" if scheme.startswith("s3") else ""
            raise UserError(f"{scheme}://: needs another package ({error}){extra}") from None
        except Exception as error:
            # A TypeError is of an argument that is missing, such as the host.
            hint = _SETTINGS.format(scheme.upper()) if isinstance(error, TypeError) else ""
            raise UserError(f"{scheme}://: cannot be opened ({_said(error)}){hint}") from None
        self._is_whole = scheme in WHOLE_UPLOADS
        self._has_limits = self._files.async_impl  # others have time limits of their own

    def find(self, url: str) -> dict[str, RemoteFile]:
        """What a URL stands for: "" if it is a file, else all files below it by their paths there.

        Raises:
            NotThereError: if there is neither.
            UserError: if it cannot be listed.
        """
        with_slash = f"{url.rstrip('/')}/"

        def listed() -> dict[str, RemoteFile]:
            self._files.invalidate_cache()
            info = self._files.info(url)
            if info["type"] != "directory":
                return {"": _as_listed(url, info)}
            root = self._files._strip_protocol(url).rstrip("/")
            found = self._files.find(url, detail=True)
            below = {name[len(root) :].lstrip("/"): info for name, info in found.items()}
            return {name: _as_listed(with_slash + name, info) for name, info in below.items()}

        return _tried(listed, url, "listed", UserError)

    def beside(self, folder: str) -> dict[str, RemoteFile]:
        """The files in a folder, without those below, by name; none if it is not there."""

        def listed() -> dict[str, RemoteFile]:
            self._files.invalidate_cache()
            found = self._files.ls(folder, detail=True)
            files = {info["name"].rpartition("/")[2]: info for info in found}
            return {
                name: _as_listed(f"{folder}/{name}", info)
                for name, info in files.items()
                if info["type"] != "directory"
            }

        try:
            return _tried(listed, folder, "listed", UserError)
        except NotThereError:
            return {}

    def download(self, file: RemoteFile, path: Path) -> RemoteFile:
        """Write a file to `path`, and look that it is all of it; returns the file as it then was.

        Raises:
            NotThereError: if it has vanished.
            UnreadableFileError: if it cannot be read, or ends early again and again.
        """
        known = [file]

        def downloaded() -> RemoteFile:
            self._files.get_file(file.url, str(path), **self._limit(known[0].size))
            got = path.stat().st_size
            if known[0].size not in (None, got):
                self._files.invalidate_cache()  # perhaps it is another one by now
                known[0] = _as_listed(file.url, self._files.info(file.url))
            if known[0].size not in (None, got):
                raise EOFError(f"{got} of {known[0].size} bytes came")
            return known[0]

        return _tried(downloaded, file.url, "read", UnreadableFileError)

    def upload(self, path: Path, url: str) -> None:
        """Make `url` the file at `path`: the old one or the whole new one is there, never a part.

        Raises:
            UserError: if that does not succeed.
        """
        folder, _, name = url.rpartition("/")
        partial = f"{folder}/.{name}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
        place = url if self._is_whole else partial
        size = path.stat().st_size

        def uploaded() -> None:
            if not self._is_whole:
                self._files.makedirs(folder, exist_ok=True)
            self._files.put_file(str(path), place, **self._limit(size))
            self._files.invalidate_cache()
            arrived = self._files.info(place)["size"]
            if arrived not in (None, size):
                with contextlib.suppress(Exception):
                    self._files.rm_file(place)
                raise EOFError(f"{arrived} of {size} bytes arrived")
            if place != url:
                self._move(place, url)

        try:
            _tried(uploaded, url, WRITTEN, UserError)
        except UserError:
            if place != url:
                with contextlib.suppress(Exception):
                    self._files.rm_file(place)
            raise

    def remove(self, url: str) -> None:
        """Remove a file; nothing happens if it is not there.

        Raises:
            UserError: if that is refused.
        """

        def removed() -> None:
            self._files.invalidate_cache()
            if self._files.exists(url):
                self._files.rm_file(url)

        with contextlib.suppress(NotThereError):
            _tried(removed, url, "replaced", UserError)

    def _move(self, place: str, url: str) -> None:
        """Give a whole file its name; `mv` takes * and ? and [ in a name for a pattern."""
        if WILDCARD_LETTERS.isdisjoint(url):
            self._files.mv(place, url)
        else:
            self._files.cp_file(place, url)
            self._files.rm_file(place)

    def _limit(self, size: int | None) -> dict[str, float]:
        """Seconds for a transfer, as an option: before an upload S3's client waits for ever."""
        known = self._has_limits and size is not None
        return {"timeout": LONGEST_SILENCE + (size or 0) / SLOWEST} if known else {}


def _tried(
    work: Callable[[], Result], url: str, what: str, kind: Callable[[str], UserError]
) -> Result:
    """What `work` returns, at the latest at the last try."""
    for number in range(TRIES):
        try:
            return work()
        except Exception as error:
            if isinstance(error, FileNotFoundError) and what != WRITTEN:
                raise NotThereError(f"{url}: is not there") from None
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise UserError(
                    f"{url}: cannot be {what} ({reason(error)}); files wait in the folder that "
                    f"TMPDIR names, {tempfile.gettempdir()}"
                ) from None
            if not _may_help(error) or number + 1 == TRIES:
                tries = f" after {TRIES} tries" if _may_help(error) else ""
                raise kind(
                    f"{url}: cannot be {what}{tries} ({_said(error)}){_hint(error)}"
                ) from None
            time.sleep(FIRST_WAIT * 2**number * random.uniform(0.5, 1))
    raise AssertionError("the last try returns or raises")


def _may_help(error: Exception) -> bool:
    """Whether to try again: not if the server has understood and refused."""
    return not isinstance(error, _NOT_AGAIN) and not _is_about_credentials(error)


def _is_about_credentials(error: Exception) -> bool:
    return isinstance(error, PermissionError) or "Credentials" in type(error).__name__


def _hint(error: Exception) -> str:
    return _CREDENTIALS if _is_about_credentials(error) else ""


def _said(error: Exception) -> str:
    return " ".join(reason(error).split()).rstrip(".")


def _as_listed(url: str, info: Mapping[str, Any]) -> RemoteFile:
    stamps: Sequence[str] = [str(info[name]) for name in _STAMPS if info.get(name)]
    return RemoteFile(url, info.get("size"), stamps[0] if stamps else "")
