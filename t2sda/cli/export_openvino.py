"""`t2sda export openvino`: a network for CPUs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets
from t2sda.cli.export_data import (
    add_calibration_arguments,
    add_evaluation_arguments,
    calibration_of,
    check_calibration,
    evaluation_of,
    print_scores,
    register_datasets_of_run,
)
from t2sda.cli.export_onnx import add_network_arguments, export_checkpoint
from t2sda.cli.exporting import add_verification_arguments, tolerance_of
from t2sda.errors import UserError
from t2sda.export.engines import metadata_of_onnx
from t2sda.export.openvino import check_size, check_xml_output, export_openvino
from t2sda.export.openvino_runtime import check_precision_runs
from t2sda.export.quantization import framed_batch, quantize_onnx
from t2sda.export.runtime import load_model
from t2sda.inference.checkpoints import open_checkpoint

PRECISIONS = ("fp32", "bf16", "int8")


def command(argv: Sequence[str]) -> int:
    """Write an IR, verified against ONNX Runtime, which was verified against PyTorch."""
    args = _parser().parse_args(argv)
    load_datasets(args)
    output = Path(args.output)
    check_xml_output(output)
    check_precision_runs(args.precision)
    with tempfile.TemporaryDirectory() as folder:
        reference = _as_onnx(args, Path(folder))
        metadata = metadata_of_onnx(reference)
        check_size(metadata, tuple(args.size) if args.size else None, args.dynamic, args.source)
        labelled = evaluation_of(args, metadata.taxonomy)
        source = reference
        pictures = [] if _is_int8(reference, args) else calibration_of(args)
        if pictures:
            source = Path(folder) / "int8.onnx"
            print(quantize_onnx(reference, source, pictures, tolerance_of(args)))
        report = export_openvino(
            source,
            output,
            precision=args.precision,
            image_size=tuple(args.size) if args.size else None,
            dynamic=args.dynamic,
            reference=reference,
            tolerance=tolerance_of(args),
            pictures=_judged(pictures, reference, args),
        )
        print(f"verified in OpenVINO against ONNX Runtime: {report}")
        print(f"{args.source} -> {args.output} ({args.precision})")
        if labelled:
            print_scores(labelled, load_model(reference), load_model(output))
    return 0


def _as_onnx(args: argparse.Namespace, folder: Path) -> Path:
    source = Path(args.source)
    if source.suffix.lower() == ".onnx":
        if args.branch != "student" or args.output_kind != "labels" or args.layout != "nhwc":
            raise UserError(
                f"{source}: an ONNX file has its branch, output and layout already; leave out "
                f"--branch, --output-kind and --layout"
            )
        return source
    reference = folder / "float32.onnx"
    checkpoint = open_checkpoint(source)
    register_datasets_of_run(checkpoint.cfg)
    check_calibration(args)  # mistakes are told before the minutes of work
    evaluation_of(args, checkpoint.taxonomy)
    print(export_checkpoint(checkpoint, reference, args, "fp32"))
    return reference


def _is_int8(reference: Path, args: argparse.Namespace) -> bool:
    if args.precision != "int8" or metadata_of_onnx(reference).precision != "int8":
        return False
    if args.calibration or args.num_calibration:
        raise UserError(f"{args.source}: is in int8 already; leave out --calibration")
    return True


def _judged(
    pictures: list[np.ndarray], reference: Path, args: argparse.Namespace
) -> list[np.ndarray] | None:
    """Batches of the target domain to compare on, as the file frames them."""
    if not pictures:
        return None
    metadata = metadata_of_onnx(reference)
    if args.size:
        metadata = replace(metadata, image_size=tuple(args.size))
    return [framed_batch(picture, metadata) for picture in pictures[-3:]]


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="t2sda export openvino",
        description="Write an OpenVINO IR (FILE.xml and FILE.bin) of a checkpoint or an ONNX file "
        "of `t2sda export onnx`. It is run and compared before it gets its name.",
    )
    parser.add_argument(
        "source", metavar="RUN|CHECKPOINT|FILE.onnx", help="run folder, checkpoint or ONNX file"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the .xml file to write")
    add_network_arguments(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="bf16 needs a CPU with such instructions, int8 needs --calibration (default: fp32)",
    )
    add_calibration_arguments(parser)
    add_verification_arguments(parser)
    add_evaluation_arguments(parser)
    add_dataset_arguments(parser)
    return parser
