"""Arguments of the commands that run a model in any runtime."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import add_dataset_arguments, positive_int
from t2sda.errors import UserError
from t2sda.plugins import load_components, load_plugins
from t2sda.runtime.description import Description
from t2sda.runtime.devices import DEVICES, check_device
from t2sda.runtime.metadata import LAYOUTS, OUTPUT_KINDS
from t2sda.runtime.runtimes import RUNTIMES, TORCH


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a model runs, and what a file of others does not say about itself."""
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        help=f"one of {', '.join(RUNTIMES)}, or of a plugin; default: the one that the file is "
        f"made for",
    )
    add_device_argument(parser)
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=0,
        metavar="N",
        help="of a CPU within one image; default: the cores, shared by the workers",
    )
    add_dataset_arguments(parser)
    described = parser.add_argument_group("for an ONNX file that t2sda did not write")
    described.add_argument(
        "--taxonomy", metavar="NAME", help="what its classes are: a label set, or a dataset's name"
    )
    for name in ("mean", "std"):
        described.add_argument(
            f"--pixel-{name}",
            nargs=3,
            type=float,
            metavar=("R", "G", "B"),
            help="in [0, 255], for a graph that takes normalised floats",
        )
    described.add_argument("--layout", choices=LAYOUTS, help="of its input")
    described.add_argument("--output-kind", choices=OUTPUT_KINDS, help="of its output")
    described.add_argument(
        "--output-name", metavar="NAME", help="of several outputs, the one that counts"
    )
    described.add_argument(
        "--drop-channels",
        nargs="+",
        type=int,
        metavar="N",
        help="channels of its output that stand for no class, counted from 0",
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """`--device`."""
    parser.add_argument(
        "--device",
        type=_device,
        default="auto",
        metavar="NAME",
        help=f"one of {', '.join(DEVICES)}; auto (default) takes the GPU where there is one",
    )


def add_branch_argument(parser: argparse.ArgumentParser) -> None:
    """`--branch`."""
    parser.add_argument(
        "--branch",
        choices=("student", "teacher"),
        help="of a checkpoint (default: student); of an exported file it must be the one it holds",
    )


def _device(text: str) -> str:
    try:
        check_device(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def load_for_models(
    models: Sequence[Path], plugins: Sequence[str], dataset_files: Sequence[str] = ()
) -> None:
    """Fill the registries as far as models need them: an exported file needs the plugins alone."""
    checkpoints = RUNTIMES[TORCH].suffixes
    if dataset_files or any(path.is_dir() or path.suffix in checkpoints for path in models):
        load_components(plugins, dataset_files)
    else:
        load_plugins(plugins)


def description_of(args: argparse.Namespace) -> Description | None:
    """What the arguments say about a file of others; None if they say nothing."""
    said = Description(
        taxonomy=args.taxonomy,
        pixel_mean=tuple(args.pixel_mean) if args.pixel_mean is not None else None,
        pixel_std=tuple(args.pixel_std) if args.pixel_std is not None else None,
        layout=args.layout,
        output_kind=args.output_kind,
        output=args.output_name,
        dropped_channels=tuple(args.drop_channels) if args.drop_channels is not None else None,
    )
    return said or None
