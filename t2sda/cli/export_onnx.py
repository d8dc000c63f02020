"""`t2sda export onnx`: a network as one file that needs no code around it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets
from t2sda.cli.export_data import (
    add_calibration_arguments,
    add_evaluation_arguments,
    calibration_of,
    evaluation_of,
    print_scores,
    register_datasets_of_run,
)
from t2sda.cli.exporting import (
    add_size_arguments,
    add_verification_arguments,
    default_image_size,
    origin_of,
    tolerance_of,
)
from t2sda.engine.checkpoint import Checkpoint
from t2sda.export.deployable import LAYOUTS, OUTPUT_KINDS
from t2sda.export.onnx import check_output, export_onnx
from t2sda.export.quantization import quantize_onnx
from t2sda.export.runtime import load_model
from t2sda.inference.checkpoints import model_of_checkpoint, open_checkpoint

PRECISIONS = ("fp32", "fp16", "int8")


def command(argv: Sequence[str]) -> int:
    """Write an ONNX file of a branch, verified against PyTorch."""
    args = _parser().parse_args(argv)
    load_datasets(args)
    output = Path(args.output)
    check_output(output, (".onnx",))
    checkpoint = open_checkpoint(Path(args.checkpoint))
    register_datasets_of_run(checkpoint.cfg)
    labelled = evaluation_of(args, checkpoint.taxonomy)
    pictures = calibration_of(args)
    if args.precision == "int8":
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "float32.onnx"
            export_checkpoint(checkpoint, source, args, "fp32")
            report = quantize_onnx(source, output, pictures, tolerance_of(args))
        print(f"verified in ONNX Runtime against float32: {report}")
    else:
        print(
            f"verified in ONNX Runtime against PyTorch: "
            f"{export_checkpoint(checkpoint, output, args, args.precision)}"
        )
    size = "any size" if args.dynamic else "x".join(map(str, _image_size(checkpoint, args)))
    print(f"{checkpoint.path} -> {args.output} ({size}, {args.precision}, {args.output_kind})")
    if labelled:
        before = load_model(checkpoint.path, branch=args.branch)
        print_scores(labelled, before, load_model(output))
    return 0


def export_checkpoint(
    checkpoint: Checkpoint, output: Path, args: argparse.Namespace, precision: str
) -> object:
    """The file of a branch as the arguments ask for it; returns the verification's report."""
    return export_onnx(
        model_of_checkpoint(checkpoint, args.branch),
        checkpoint.taxonomy,
        output,
        image_size=_image_size(checkpoint, args),
        dynamic=args.dynamic,
        output_kind=args.output_kind,
        layout=args.layout,
        precision=precision,
        image_bound=tuple(checkpoint.cfg.EVALUATION.IMAGE_SIZE) or None,
        origin=origin_of(checkpoint, args.branch),
        tolerance=tolerance_of(args) if precision == args.precision else None,
    )


def _image_size(checkpoint: Checkpoint, args: argparse.Namespace) -> tuple[int, int]:
    return tuple(args.size) if args.size else default_image_size(checkpoint.cfg)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """What is exported, and what goes in and comes out."""
    parser.add_argument(
        "--branch",
        choices=("student", "teacher"),
        default="student",
        help="which network of the checkpoint (default: student)",
    )
    add_size_arguments(parser, "EVALUATION.IMAGE_SIZE of the run, or the size of its source images")
    parser.add_argument(
        "--output-kind",
        choices=OUTPUT_KINDS,
        default="labels",
        help="uint8 train ids (default), or float32 logits or probabilities",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="nhwc",
        help="of the input: as decoders give it (default), or channels first",
    )


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="t2sda export onnx",
        description="Write a network as an ONNX file that takes uint8 RGB pictures (batch, "
        "height, width, 3) and gives train ids, logits or probabilities of the same size: "
        "normalisation, up-sampling and argmax are inside. The file is run in ONNX Runtime and "
        "compared with PyTorch before it gets its name.",
    )
    parser.add_argument("checkpoint", metavar="RUN|CHECKPOINT", help="run folder or checkpoint")
    parser.add_argument("--output", required=True, metavar="FILE", help="the ONNX file to write")
    add_network_arguments(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of backbone and head; int8 needs --calibration (default: fp32)",
    )
    add_calibration_arguments(parser)
    add_verification_arguments(parser)
    add_evaluation_arguments(parser)
    add_dataset_arguments(parser)
    return parser
