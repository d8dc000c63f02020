"""`t2sda completion SHELL`: with its output a shell completes verbs, options and choices."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence

from t2sda.cli import data
from t2sda.cli.common import ArgumentParser, load_components
from t2sda.cli.main import COMMANDS
from t2sda.runtime.packages import require

SHELLS = ("bash", "zsh", "tcsh")


def command(argv: Sequence[str]) -> int:
    """Print the script; needs the package shtab."""
    args = build_parser().parse_args(argv)
    shtab = require("shtab", "completion")
    load_components([])
    print(shtab.complete(whole_parser(shtab.FILE), args.shell))
    return 0


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda completion",
        description="Print a script that completes commands, options and their choices. bash: "
        '`eval "$(t2sda completion bash)"` in ~/.bashrc, or the script in a file there, which '
        "starts faster.",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS))
    return parser


def whole_parser(files: object) -> argparse.ArgumentParser:
    """One parser of all verbs, as shtab wants it; no command line is parsed by it.

    Args:
        files: what shtab takes for "the name of a file".
    """
    root = argparse.ArgumentParser(prog="t2sda")
    root.add_argument("--version", action="store_true", help="print the version")
    verbs = root.add_subparsers()
    for verb, (module, about) in COMMANDS.items():
        if verb == "data":
            group = verbs.add_parser(verb, help=about).add_subparsers()
            for name, (own, what) in data.VERBS.items():
                _add(group, name, what, importlib.import_module(own).build_parser(), files)
        elif verb == "export":
            _add_exports(verbs.add_parser(verb, help=about).add_subparsers(), files)
        else:
            _add(verbs, verb, about, importlib.import_module(module).build_parser(), files)
    return root


def _add_exports(group: argparse._SubParsersAction, files: object) -> None:
    from t2sda.cli import export, export_info  # they import all exporters

    for name, exporter in export.EXPORTERS.items():
        _add(group, name, f"as {exporter.suffixes[0]}", export.build_parser(name, exporter), files)
    for name, made_of in export.FOLDERS.items():
        own = importlib.import_module(f"t2sda.cli.export_{name}")
        _add(group, name, f"a folder made of {made_of}", own.build_parser(), files)
    _add(group, "info", "what a file says about itself", export_info.build_parser(), files)


def _add(
    group: argparse._SubParsersAction,
    name: str,
    about: str,
    parser: argparse.ArgumentParser,
    files: object,
) -> None:
    """The options of `parser` below `name`; a value without choices may be a file."""
    for action in parser._actions:
        if isinstance(action.choices, Mapping):
            action.choices = tuple(action.choices)  # shtab takes a mapping for commands
        if action.nargs != 0 and action.choices is None and action.type is None:
            action.complete = files  # type: ignore[attr-defined]
    group.add_parser(name, help=about, parents=[parser], add_help=False)
