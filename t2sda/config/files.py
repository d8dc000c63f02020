"""Config files: where they lie, and the chain of `_BASE_` files behind one."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import yaml

from t2sda.config.errors import ConfigError, shown
from t2sda.config.yaml_text import Entry, Tree, parse_yaml
from t2sda.errors import UserError
from t2sda.files import (
    is_folder,
    is_missing,
    is_regular_file,
    mistaken_for,
    read_small_file,
    user_path,
)
from t2sda.registry import nearest_first

BASE_KEY = "_BASE_"
MAX_BASES = 50
"""Files that are each based on the next."""


def find_config(path: str | os.PathLike[str]) -> Path:
    """The file at `path`, or the shipped config of that name (with or without "configs/").

    Raises:
        ConfigError: if there is none; the message names the nearest ones.
    """
    wanted = user_path(os.fspath(path), "config file")
    found = _locate(wanted)
    if found is None:
        raise ConfigError([_missing(wanted)])
    return found


def shipped_configs() -> dict[str, str]:
    """Name of every shipped file, as `find_config` takes it -> its first comment, or ""."""
    folder = _shipped_dir()
    files = sorted(folder.rglob("*.yaml")) if folder else []
    first_lines = (file.read_text(encoding="utf-8").partition("\n")[0] for file in files)
    return {
        f"configs/{file.relative_to(folder)}": line[1:].strip() if line.startswith("#") else ""
        for file, line in zip(files, first_lines, strict=True)
        if folder
    }


def read_trees(path: Path, problems: list[str]) -> list[Tree]:
    """The settings of a file and of its bases, the most basic first: later ones win.

    A base that several files name is read once: where it comes up last, it sets all that it would
    have set before.
    """
    found: dict[str, Tree] = {}
    _read_backwards(path, (), found, problems)
    return list(reversed(found.values()))


def _read_backwards(
    path: Path, askers: tuple[Path, ...], found: dict[str, Tree], problems: list[str]
) -> None:
    """Add the file and then its bases, the last one first, to `found`."""
    chain = (*askers, path)
    identity = os.path.realpath(path)  # Path.resolve raises for a link to itself
    if identity in map(os.path.realpath, askers):
        names = " -> ".join(str(link) for link in chain)
        problems.append(f"{BASE_KEY}: the bases form a cycle: {names}; remove one of the links")
        return
    if identity in found:
        return
    if len(chain) > MAX_BASES:
        problems.append(f"{BASE_KEY}: more than {MAX_BASES} files, each based on the next ({path})")
        return
    tree = _read_file(path, problems)
    bases = tree.pop(BASE_KEY, None)
    found[identity] = tree
    for base in reversed(_base_paths(path, bases, problems)) if bases else []:
        _read_backwards(base, chain, found, problems)


def _read_file(path: Path, problems: list[str]) -> Tree:
    def where(mark: yaml.Mark | None) -> str:
        return str(path) if mark is None else f"{path}:{mark.line + 1}"

    try:
        text = read_small_file(path)
    except UserError as error:
        problems.append(str(error))
        return {}
    root = parse_yaml(text, where, problems)
    if root is None or root.value is None:  # an empty file sets nothing
        return {}
    if not isinstance(root.value, dict):
        mistaken = mistaken_for(text)
        problems.append(
            f"{path}: found {shown(root.value)} at the top level; "
            + (f"it is {mistaken}" if mistaken else "write settings as `KEY: value`")
        )
        return {}
    return root.value


def _base_paths(path: Path, bases: Entry, problems: list[str]) -> list[Path]:
    names = bases.value if isinstance(bases.value, list) else [bases.value]
    if not all(isinstance(name, str) and "\0" not in name for name in names):
        problems.append(
            f"{BASE_KEY}: found {shown(bases.value)} ({bases.where}); "
            f"must be a file name or a list of file names"
        )
        return []
    found = []
    for name in names:
        wanted = user_path(name, BASE_KEY)
        base = _locate(wanted, path.parent)
        if base is None:
            missing = _missing(path.parent / wanted)
            problems.append(f"{missing}; {BASE_KEY} in {bases.where} asks for it")
        else:
            found.append(base)
    return found


def _locate(path: Path, folder: Path | None = None) -> Path | None:
    """What there is at `path` in `folder` (default: here), else the shipped config."""
    here = (folder or Path()) / path
    if is_regular_file(here):
        short = Path(os.path.normpath(here))  # another file where a folder is a link
        return short if is_regular_file(short) and short.samefile(here) else here
    if not is_missing(here):  # whoever reads it says what is the matter
        return here
    shipped = _shipped_dir()
    if shipped is None or path.is_absolute() or ".." in path.parts:
        return None
    name = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    return shipped / name if is_regular_file(shipped / name) else None


def _shipped_dir() -> Path | None:
    """Folder of the shipped configs: the package t2sda.configs, or `configs/` of a source tree."""
    spec = importlib.util.find_spec("t2sda.configs")
    packaged = list(spec.submodule_search_locations or ()) if spec else []
    beside_package = Path(__file__).parents[2] / "configs"
    candidates = [*map(Path, packaged), beside_package]
    return next((folder for folder in candidates if folder.is_dir()), None)


def _missing(path: Path) -> str:
    """What to say about a file that is not there, with the nearest ones that are."""
    folder = path.parent
    in_folder = [file.name for file in folder.glob("*.yaml")] if is_folder(folder) else []
    near = [str(folder / name) for name in nearest_first(path.name, in_folder)[:3]]
    shipped = _shipped_dir()
    if shipped is not None:
        files = [f"configs/{file.relative_to(shipped)}" for file in shipped.rglob("*.yaml")]
        near += nearest_first(str(path), files)[:2]
    names = ", ".join(dict.fromkeys(near)) or "none"
    return f"{path}: no such file; nearest existing: {names}"
