"""A list of all files of a folder with their SHA-256, as `sha256sum` writes and checks it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from t2sda.data.parallel import Progress, mapped, unseen
from t2sda.errors import UserError

MANIFEST_NAME = "SHA256SUMS"


class Difference(NamedTuple):
    """A file that is not as its manifest says."""

    path: Path
    kind: str
    """"missing", "damaged" or "extra"."""


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_text(digests: Mapping[str, str]) -> str:
    """The manifest of files, each given by its path below the folder."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def differences(folder: Path, progress: Progress = unseen) -> Iterator[Difference]:
    """What has happened to the files of a folder since its manifest was written.

    Raises:
        UserError: if the manifest itself is damaged.
    """
    expected = _read(folder / MANIFEST_NAME)
    names = list(expected)
    what = f"verifying {folder}"
    states = mapped(partial(_state, folder, expected, names), len(names), what, progress)
    for name, state in zip(names, states, strict=True):
        if state:
            yield Difference(folder / name, state)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in expected and name != MANIFEST_NAME:
            yield Difference(path, "extra")


def _state(folder: Path, expected: Mapping[str, str], names: list[str], index: int) -> str:
    name = names[index]
    try:
        return "" if digest_of(folder / name) == expected[name] else "damaged"
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"


def _read(path: Path) -> dict[str, str]:
    expected = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            digest, name = line.split("  ", maxsplit=1)
            expected[name] = digest
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy or pack the set again") from None
    return expected
