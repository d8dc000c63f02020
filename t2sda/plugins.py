"""What fills the registries: our own components, a user's modules, dataset files."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from t2sda.errors import MissingFileError, UserError

LOADED_FILES: set[Path] = set()
"""Plugins that were given as files; what they register stays."""


def load_components(plugins: Sequence[str], dataset_files: Sequence[str] = ()) -> None:
    """Fill the registries: ours first, then the user's own modules and dataset files."""
    importlib.import_module("t2sda.builtin")
    load_plugins(plugins)
    if dataset_files:
        from t2sda.data.dataset_files import register_dataset_files  # `--help` needs no torch

        register_dataset_files(dataset_files)


def load_plugins(plugins: Sequence[str]) -> None:
    """Import the user's own modules."""
    for plugin in plugins:
        _load_plugin(plugin)


def _load_plugin(plugin: str) -> None:
    path = Path(plugin)
    if path.suffix == ".py":
        _load_file(path)
        return
    if "" not in sys.path:
        sys.path.insert(0, "")  # `t2sda` as a console script does not search the working directory
    try:
        importlib.import_module(plugin)
    except ModuleNotFoundError as error:
        if error.name is None or not plugin.startswith(error.name):
            raise
        raise UserError(
            f"--plugin {plugin}: no module of that name in the working directory or the "
            f"environment; give an importable module or the path of a .py file"
        ) from None


def _load_file(path: Path) -> None:
    if path.absolute() in LOADED_FILES:  # as for modules: a second import does nothing
        return
    if not path.is_file():
        raise MissingFileError(f"--plugin {path}: no such file")
    if path.stem in sys.modules and _file_of(path.stem) != path.absolute():
        raise UserError(
            f"--plugin {path}: a module '{path.stem}' is imported already, from "
            f"{_file_of(path.stem) or 'Python itself'}; give the file another name"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # loader workers and pickling find its classes by this name
    spec.loader.exec_module(module)
    LOADED_FILES.add(path.absolute())


def _file_of(module: str) -> Path | None:
    """Where an imported module was read from; None if it is built in."""
    file = getattr(sys.modules[module], "__file__", None)
    return Path(file).absolute() if file else None
