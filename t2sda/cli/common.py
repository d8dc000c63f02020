"""What all commands share: arguments, plugins, and errors without tracebacks."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from t2sda.errors import ENVIRONMENT_ERRORS, UserError, printable
from t2sda.files import open_regular

USER_ERROR = 2


class ArgumentParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, not behind all that could be given."""

    def error(self, message: str) -> NoReturn:
        print(printable(f"error: {message}; see {self.prog} --help"), file=sys.stderr)
        sys.exit(USER_ERROR)


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a command; what a user can mend becomes one message on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # a code page may lack letters of a file's name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return command(argv)
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return USER_ERROR
    except ModuleNotFoundError as error:
        if (error.name or "t2sda").partition(".")[0] == "t2sda":
            raise  # ours to find
        print(
            f"error: this needs the package '{error.name}', which is not installed here; running "
            f"exported files needs requirements-runtime.txt alone, all else `pip install t2sda`",
            file=sys.stderr,
        )
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; Python would complain at exit
        return 141
    except OSError as error:
        if error.errno not in ENVIRONMENT_ERRORS:
            raise
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        print(printable(f"error: {where}{error.strerror}"), file=sys.stderr)
        return USER_ERROR


def add_config_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """`--config-file`, `--plugin` and the KEY VALUE pairs."""
    parser.add_argument(
        "--config-file",
        required=required,
        metavar="FILE",
        help="YAML file; one of the shipped ones is found by its name below configs/",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module or .py file that registers components of your own; repeatable",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY VALUE",
        help="settings that replace those of the file, such as SOLVER.MAX_ITER 100",
    )


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """`--plugin` and `--file`, with which datasets of one's own are registered."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module or .py file that registers datasets or components of your own, such "
        "as the run was started with; repeatable",
    )
    parser.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="YAML",
        help="dataset file as for DATASETS.FILES; repeatable",
    )


def positive_int(text: str) -> int:
    """A number of pixels, images, threads: an argument's type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return int(text)


def load_datasets(args: argparse.Namespace) -> None:
    """Fill the registries, with what the arguments of `add_dataset_arguments` name."""
    load_components(args.plugin, args.file)


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
    other = sys.modules.get(path.stem)
    if other is not None and other not in _LOADED_FILES:
        raise UserError(
            f"--plugin {path}: a module called '{path.stem}' is loaded already; give the file "
            f"another name"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # loader workers and pickling find its classes by this name
    _LOADED_FILES.append(module)
    spec.loader.exec_module(module)


_LOADED_FILES: list[ModuleType] = []
