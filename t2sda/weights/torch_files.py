"""Files that `torch.save` wrote: their checksums are asked, and nothing in them is executed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from t2sda.errors import UserError
from t2sda.files import mistaken_for, open_regular, reason

OWN_MARK = "t2sda checkpoint "
"""What the `format` of a checkpoint of ours begins with; its number follows."""
_ZIP = b"PK\x03\x04"
_BEGINNING = 512
_GLOBAL = re.compile(r"GLOBAL (?P<name>[\w.]+)")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class DamagedFileError(UserError):
    """A file that is not what was written, or never was a file of torch; one line says why."""


def read_torch_file(
    path: Path,
    *,
    any_writer: bool = False,
    harmless: Collection[str] | None = None,
    mapped: bool = False,
) -> Any:
    """The content of a file of `torch.save`, on the CPU: tensors, numbers, text, containers.

    Args:
        path: of the file.
        any_writer: it was not written by us: it may be in the older format, which has no checksums,
            and objects of other classes may lie beside the tensors; each becomes an empty
            stand-in. Either way no code of the file runs.
        harmless: of these classes alone, where given; a file with another one is refused.
        mapped: tensors are mapped into memory where the format allows it, and read when used.
    Raises:
        MissingFileError: if there is none.
        DamagedFileError: if a checksum does not fit or the content cannot be read.
    """
    is_zip = _is_whole_archive(path)
    if not is_zip and not any_writer:
        raise DamagedFileError("it is no file of torch")
    try:
        with _stand_ins_for(path, harmless) if any_writer else nullcontext():
            is_mapped = mapped and is_zip
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # whatever the readers of pickles and archives fail with
        raise DamagedFileError(_cause(error)) from None


def is_whole(path: Path) -> bool:
    """Whether a file is an archive of torch whose checksums fit."""
    try:
        return _is_whole_archive(path)
    except UserError:
        return False


def _is_whole_archive(path: Path) -> bool:
    """Whether it is an archive; raises DamagedFileError for what no reader should see."""
    with open_regular(path) as file:
        beginning = file.read(_BEGINNING)
    if mistaken := mistaken_for(beginning):
        raise DamagedFileError(f"it is {mistaken}")
    if not beginning:
        raise DamagedFileError("it is empty")
    if not beginning.startswith(_ZIP):
        return False
    _check_checksums(path)
    return True


def _check_checksums(path: Path) -> None:
    """Ask the CRC-32 of every tensor: torch writes it and does not look at it."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # of a damaged archive, zipfile and zlib have many
        raise DamagedFileError(f"it is damaged or was cut short: {_first_line(error)}") from None
    if damaged is not None:
        raise DamagedFileError(f"it is damaged: the checksum of {damaged} does not fit")


class _StandIn:
    """What becomes of an object whose class is not plain data: it takes anything, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_ins_for(path: Path, harmless: Collection[str] | None) -> AbstractContextManager[Any]:
    """Let torch's restricted reader call `_StandIn` wherever the file names another class."""
    names = harmless
    if names is None:  # torch can list them in an archive alone
        is_zip = zipfile.is_zipfile(path)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else ()
    return torch.serialization.safe_globals([(_StandIn, name) for name in names])


def _cause(error: Exception) -> str:
    """One line, without torch's advice to load the file in an unsafe way."""
    text = str(error)
    if found := _GLOBAL.search(text):
        return (
            f"it holds `{found['name']}`, which is no plain data and could run code; save "
            f"model.state_dict() with torch.save"
        )
    if "TorchScript" in text:
        return "it is a TorchScript archive; a state dict is needed"
    if "weights_only" in text:
        return "it is no file of torch, or damaged"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    lines = _ESCAPE.sub("", reason(error)).splitlines()
    return lines[0].strip() if lines else type(error).__name__
