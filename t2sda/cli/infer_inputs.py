"""What `t2sda infer` is given to segment: names, a list of names, or standard input."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2sda.errors import UserError
from t2sda.files import read_small_file, reason
from t2sda.images.finding import counted
from t2sda.inference.sources import Source, find_all_sources, read_list
from t2sda.inference.transfer import Transfer

STANDARD_INPUT = "-"
_NAME = "stdin"
"""What results of standard input are called."""
_LONGEST_LIST = 1 << 28
"""Bytes of a list: millions of paths."""


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """`--input` and `--files-from`."""
    parser.add_argument(
        "--input",
        nargs="+",
        default=[],
        metavar="FILE|DIR|GLOB|VIDEO|URL",
        help="images, folders, patterns, videos, also as s3://… ; - reads one image or video from "
        "standard input",
    )
    parser.add_argument(
        "--files-from",
        metavar="LIST",
        help="file with one input a line, as --input takes them; - reads it from standard input",
    )


@contextmanager
def sources_of(
    args: argparse.Namespace, output_dir: Path, transfer: Transfer
) -> Iterator[list[Source]]:
    """The images and videos that the arguments name; says what lies beside them.

    What came from standard input is in a file of its own within.

    Raises:
        UserError: if nothing is named, or something that is not there.
    """
    inputs = list(args.input)
    if STANDARD_INPUT in inputs:
        if len(inputs) > 1 or args.files_from:
            raise UserError("--input -: standard input is one image or video; give it alone")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _NAME
            transfer.call(path, "standard input")
            _spool(path)
            yield find_all_sources([str(path)], output_dir).sources
        return
    if args.files_from:
        inputs += _listed(args.files_from, transfer)
    if not inputs:
        raise UserError("nothing to segment is named; give --input or --files-from")
    if "" in inputs:  # a variable of the shell that is not set; Python's paths take it for "."
        raise UserError("--input: a name is empty; write . for the folder that you are in")
    found = find_all_sources(transfer.inputs(inputs), output_dir, transfer.place)
    passed_over = found.passed_over + transfer.passed_over
    if passed_over:
        where = inputs[0] if len(inputs) == 1 else f"{len(inputs)} inputs"
        print(f"passed over in {where}: {counted(passed_over)}")
    yield found.sources


def _listed(name: str, transfer: Transfer) -> list[str]:
    if name == STANDARD_INPUT:
        return read_list(sys.stdin.buffer.read(_LONGEST_LIST), "standard input")
    path = Path(transfer.inputs([name])[0])
    with transfer.here(path):
        return read_list(read_small_file(path, _LONGEST_LIST), name)


def _spool(path: Path) -> None:
    """Standard input as a file: decoders of videos go back and forth in it."""
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    except OSError as error:
        raise UserError(
            f"standard input: cannot be kept ({reason(error)}); it waits in the folder that TMPDIR "
            f"names, {tempfile.gettempdir()}"
        ) from None
