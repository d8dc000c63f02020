"""`t2sda export triton`: an ONNX file in a repository of Triton."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser, positive_int
from t2sda.errors import UserError
from t2sda.export.triton import MAX_BATCH, export_triton
from t2sda.export.verify import metadata_of_onnx

LARGEST_BATCH = (1 << 31) - 1
"""An int32 in config.pbtxt."""


def command(argv: Sequence[str]) -> int:
    """Write the next version of the model."""
    args = build_parser().parse_args(argv)
    source = Path(args.source)
    if source.suffix.lower() != ".onnx":
        raise UserError(f"{source}: `t2sda export onnx` comes first; an ONNX file is due here")
    if args.max_batch and metadata_of_onnx(source).image_size is not None:
        raise UserError(
            f"--max-batch: {source} takes images of one size one by one; leave it out, or export "
            f"the file with --dynamic"
        )
    placed = export_triton(
        source, Path(args.output), name=args.name, max_batch=args.max_batch or MAX_BATCH
    )
    print(f"{source} -> {placed.folder}, version {placed.version}")
    return 0


def _batch(text: str) -> int:
    batch = positive_int(text)
    if batch > LARGEST_BATCH:
        raise argparse.ArgumentTypeError(f"{batch} is more than {LARGEST_BATCH}")
    return batch


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda export triton",
        description="Put a file of `t2sda export onnx` into a model repository, which Triton, "
        "KServe and OpenVINO Model Server read: NAME/config.pbtxt, NAME/labels.txt and the next "
        "NAME/VERSION/model.onnx.",
    )
    parser.add_argument("source", metavar="FILE.onnx", help="what is served")
    parser.add_argument("--output", required=True, metavar="DIR", help="the repository")
    parser.add_argument("--name", help="of the model; default: that of the file")
    parser.add_argument(
        "--max-batch",
        type=_batch,
        metavar="N",
        help="images that Triton puts together, of a file that takes any number (default "
        f"{MAX_BATCH})",
    )
    return parser
