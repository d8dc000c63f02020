"""What fills the registries: our own components, a user's modules, dataset files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from t2sda.errors import UserError
from t2sda.files import open_regular

LOADED_FILES: dict[Path, ModuleType] = {}
"""Plugins that were given as files; what they register stays."""


def load_components(plugins: Sequence[str], dataset_files: Sequence[str] = ()) -> None:
    """Fill the registries: ours first, then the user's own modules and dataset files."""
    importlib.import_module("t2sda.builtin")
    load_plugins(plugins)
    if dataset_files:
        from t2sda.data.dataset_files import register_dataset_files  # `--help` needs no torch

        register_dataset_files(dataset_files)


def recorded(plugins: Sequence[str]) -> list[str]:
    """Plugins as a run's configuration names them: files by their full path, each once."""
    return list(
        dict.fromkeys(
            os.path.normpath(Path.cwd() / name) if name.endswith(".py") else name
            for name in plugins
        )
    )


def load_plugins(plugins: Sequence[str]) -> None:
    """Import the user's own modules."""
    for plugin in plugins:
        _load_plugin(plugin)


def _load_plugin(plugin: str) -> None:
    path = Path(plugin)
    try:
        if path.suffix == ".py":
            _load_file(path)
        elif plugin and all(name.isidentifier() for name in plugin.split(".")):
            _import_module(plugin)
        else:
            raise UserError(
                f"--plugin {plugin!r}: neither the name of a module nor the path of a .py file"
            )
    except (UserError, OSError):
        raise
    except Exception as error:  # of the user's own code: where in it matters, not where in ours
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(
            f"--plugin {plugin}: {type(error).__name__}: {error} "
            f"({place or f'{frame.filename}:{frame.lineno}'})"
        ) from error


def _import_module(name: str) -> None:
    folder = str(Path.cwd())
    if folder not in sys.path:
        # Last, so that nothing in the working directory takes the place of an installed module.
        sys.path.append(folder)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"--plugin {name}: no module of that name in the environment or the working "
            f"directory; give an importable module or the path of a .py file"
        ) from None


def _load_file(path: Path) -> None:
    open_regular(path).close()
    if path.resolve() in LOADED_FILES:  # as for modules: a second import does nothing
        return
    other = sys.modules.get(path.stem)
    if other is not None and _file_of(other) != path.resolve():
        raise UserError(
            f"--plugin {path}: a module called '{path.stem}' is loaded already; give the file "
            f"another name"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # loader workers and pickling find its classes by this name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    LOADED_FILES[path.resolve()] = module


def _file_of(module: ModuleType) -> Path | None:
    """Where a module was read from; None if it is built in."""
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None
