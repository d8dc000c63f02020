"""What all commands share: arguments, plugins, and errors without tracebacks."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from t2sda.errors import ENVIRONMENT_ERRORS, UserError, printable
from t2sda.logs import log_to_console
from t2sda.plugins import load_components, recorded

USER_ERROR = 2


class ArgumentParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, not behind all that could be given."""

    def error(self, message: str) -> NoReturn:
        print(printable(f"error: {message}; see {self.prog} --help"), file=sys.stderr)
        sys.exit(USER_ERROR)


def whole_verb(word: str, known: Iterable[str]) -> str:
    """The one verb that begins so, as `eval`; the word itself where there is none, or several."""
    found = [verb for verb in known if verb.startswith(word)]
    return found[0] if len(found) == 1 else word


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a command; what a user can fix becomes one message on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # a code page may lack letters of a file's name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with log_to_console():
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


def load_for_config(args: argparse.Namespace) -> list[str]:
    """Load the plugins that the configuration and `--plugin` name; returns the overrides.

    With them the resolved configuration names all of these plugins.

    Raises:
        UserError: if an override names plugins, which would come too late.
    """
    from t2sda.config import plugins_named  # `--help` of other commands needs no fvcore

    if any(word.partition("=")[0] == "PLUGINS" for word in args.overrides):
        raise UserError("PLUGINS: on a command line, --plugin MODULE names one")
    named = plugins_named(args.config_file) if args.config_file is not None else []
    plugins = [*named, *args.plugin]
    load_components(plugins)
    if not plugins:
        return list(args.overrides)
    return [*args.overrides, "PLUGINS", json.dumps(recorded(plugins))]


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


def distinct_names(paths: Sequence[str | Path]) -> list[str]:
    """A short name for each file or folder; raises UserError if two paths lead to the same one."""
    resolved = [os.path.realpath(path) for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UserError(f"{path}: given twice; name each once")
    return short_names(resolved)


def short_names(paths: Sequence[str]) -> list[str]:
    """Of every path as many parts from its end as distinguish it from all others."""
    return [_short_name(Path(path), [Path(other) for other in paths]) for path in paths]


def _short_name(path: Path, all_paths: Sequence[Path]) -> str:
    others = [other for other in all_paths if other != path]
    for count in range(1, len(path.parts)):
        end = path.parts[-count:]
        if all(other.parts[-count:] != end for other in others):
            return str(Path(*end))
    return str(path)


def load_datasets(args: argparse.Namespace) -> None:
    """Fill the registries, with what the arguments of `add_dataset_arguments` name."""
    load_components(args.plugin, args.file)
