"""`t2sda data pack NAME`: write a dataset resized, as files that are fast to read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets
from t2sda.data.catalog import open_dataset
from t2sda.data.dataset_files import read_dataset_file
from t2sda.data.packing import DESCRIPTION_NAME, pack_dataset, packed_bytes
from t2sda.engine.metrics import standard_console
from t2sda.engine.progress import ConsoleProgress
from t2sda.errors import UserError


def command(argv: Sequence[str]) -> int:
    """Pack, and say how to use what was written."""
    args = build_parser().parse_args(argv)
    load_datasets(args)
    bound = args.size[0], args.size[1]
    if min(bound) < 1:
        raise UserError(f"--size {bound[0]} {bound[1]}: give a height and a width of 1 or more")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: give 1 or more")
    dataset = open_dataset(args.name)
    console = standard_console()
    console.print(
        f"{dataset.name}: {len(dataset)} images, about {packed_bytes(dataset, bound) / 1e9:.2f} GB "
        f"when packed",
        highlight=False,
        soft_wrap=True,
    )
    pack_dataset(dataset, bound, args.output, ConsoleProgress(console), args.workers)
    size = sum(path.stat().st_size for path in args.output.rglob("*"))
    role = "SOURCE" if dataset.labelled else "TARGET"
    description = args.output / DESCRIPTION_NAME
    (packed,) = read_dataset_file(description)
    console.print(
        f"{args.output}: {size / 1e9:.2f} GB; train on it with DATASETS.FILES '[{description}]' "
        f"DATASETS.{role} {packed.name} DATA.{role}_SIZE '[{bound[0]}, {bound[1]}]'; verify it "
        f"with t2sda data check {description}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda data pack",
        description="Write resized images and train ids as PNG files that are decoded ten times as "
        "fast, with a dataset.yaml that describes them and a list of checksums. A packing that was "
        "stopped goes on where it was.",
    )
    parser.add_argument("name", metavar="NAME", help="a registered dataset")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        required=True,
        metavar=("H", "W"),
        help="images are resized to fit it, ratio kept, as DATA.SOURCE_SIZE does",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that decode; default: one a core"
    )
    add_dataset_arguments(parser)
    return parser
