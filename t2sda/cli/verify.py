"""`t2sda verify FILE`: does an exported file still compute what it was made of?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser
from t2sda.cli.exporting import add_verification_arguments
from t2sda.cli.loading import add_device_argument
from t2sda.errors import UserError
from t2sda.export.later import agreement, open_exported, run_once
from t2sda.plugins import load_components


def command(argv: Sequence[str]) -> int:
    """Check one file; what is wrong with it is a UserError."""
    args = build_parser().parse_args(argv)
    if args.max_changed is not None and args.against is None:
        raise UserError("--max-changed: there is nothing to compare with; add --against RUN|FILE")
    load_components(args.plugin)
    path = Path(args.file)
    model = open_exported(path, args.device)
    origin = ", ".join(f"{key} {value}" for key, value in model.metadata.origin.items())
    print(f"{path}: whole, as it was written; made of {origin or 'what it does not say'}")
    pixels = run_once(model)
    print(f"runs in {model.runtime}: {pixels} pixels of drawn streets, each has a class")
    if args.against is None:
        print("not compared with anything; --against RUN|FILE does")
        return 0
    report = agreement(path, model, Path(args.against), args.max_changed)
    print(f"agrees with {args.against}: {report}")
    return 0


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda verify",
        description="Check an exported file at any later time: it is as it was written, it runs, "
        "and with --against it gives what its run, checkpoint or ONNX file gives.",
    )
    parser.add_argument("file", metavar="FILE", help="of `t2sda export`: .onnx, .xml or .engine")
    parser.add_argument(
        "--against",
        metavar="RUN|FILE",
        help="a run's folder, a checkpoint, an ONNX file or an OpenVINO IR",
    )
    add_verification_arguments(parser)
    add_device_argument(parser)
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module or .py file with the network's components or the runtime; repeatable",
    )
    return parser
