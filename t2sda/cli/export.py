"""`t2sda export TARGET`: a trained network as a file for other runtimes."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from t2sda.cli import export_info
from t2sda.cli.common import USER_ERROR, ArgumentParser, add_dataset_arguments, load_components
from t2sda.cli.export_data import (
    add_calibration_arguments,
    add_evaluation_arguments,
    calibration_of,
    check_calibration,
    evaluation_of,
    print_scores,
    register_datasets_of_run,
)
from t2sda.cli.exporting import (
    add_network_arguments,
    add_verification_arguments,
    default_image_size,
    origin_of,
    tolerance_of,
)
from t2sda.data.dataset_files import register_dataset_files
from t2sda.engine.checkpoint import Checkpoint
from t2sda.errors import UserError
from t2sda.export.exporters import EXPORTERS, Exporter, Job
from t2sda.export.onnx import OPSET, check_output, export_onnx
from t2sda.export.quantization import quantize_onnx
from t2sda.export.verify import metadata_of_onnx
from t2sda.registry import nearest_first
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.runtime.loading import load_model
from t2sda.runtime.runtimes import check_branch

FOLDERS = {"triton": "FILE.onnx", "web": "RUN|CHECKPOINT|FILE.onnx"}
"""Targets that are folders: what each is made of; `t2sda.cli.export_TARGET` is its command."""


def command(argv: Sequence[str]) -> int:
    """Export to the target that the first argument names."""
    if argv and argv[0] == "info":
        return export_info.command(argv[1:])
    if argv and argv[0] in FOLDERS:
        return importlib.import_module(f"t2sda.cli.export_{argv[0]}").command(argv[1:])
    if argv and argv[0] not in ("-h", "--help"):
        load_components(_plugins_in(argv))  # they may bring targets
    if argv and argv[0] in EXPORTERS:
        return _export(argv[0], EXPORTERS[argv[0]], argv[1:])
    if argv and not argv[0].startswith("-"):
        known = ", ".join(nearest_first(argv[0], [*EXPORTERS, *FOLDERS, "info"]))
        raise UserError(f"t2sda export {argv[0]}: unknown; known, nearest first: {known}")
    asked_for_help = bool(argv) and argv[0] in ("-h", "--help")
    stream = sys.stdout if asked_for_help else sys.stderr
    for name, exporter in EXPORTERS.items():
        output = f"--output FILE{exporter.suffixes[0]}"
        print(f"usage: t2sda export {name} {_source(exporter)} {output} [options]", file=stream)
    for name, taken in FOLDERS.items():
        print(f"usage: t2sda export {name} {taken} --output DIR [options]", file=stream)
    print("usage: t2sda export info FILE   (what an exported file says about itself)", file=stream)
    print("(t2sda export TARGET --help)", file=stream)
    return 0 if asked_for_help else USER_ERROR


def _export(name: str, exporter: Exporter, argv: Sequence[str]) -> int:
    args = build_parser(name, exporter).parse_args(argv)
    register_dataset_files(args.file)
    output = Path(args.output)
    check_output(output, exporter.suffixes)
    exporter.check(args)
    with tempfile.TemporaryDirectory() as folder:
        reference = _as_onnx(name, exporter, args, Path(folder))
        labelled = evaluation_of(args, metadata_of_onnx(reference).taxonomy)
        source, images = _quantized(reference, args, Path(folder))
        written = exporter.write(
            Job(
                source,
                reference,
                output,
                args.precision,
                tuple(args.size) if args.size else None,
                args.dynamic,
                images,
                tolerance_of(args),
                args,
            )
        )
        if written.said:
            print(written.said)
        if exporter.takes_checkpoints:
            print(f"{args.source} -> {output} ({_size_text(output)}{args.precision})")
        if labelled and written.can_run:
            before = load_model(reference if _is_onnx(args) else args.source, branch=args.branch)
            print_scores(labelled, before, load_model(output))
        elif labelled:
            print(f"not scored on {labelled.name}: that takes --verify-only as well")
    return 0


def _as_onnx(name: str, exporter: Exporter, args: argparse.Namespace, folder: Path) -> Path:
    """The ONNX file that the export begins with: given, or of a checkpoint, verified."""
    source = Path(args.source)
    if _is_onnx(args):
        if exporter.takes_checkpoints:
            _check_onnx_source(name, args)
        return source
    if not exporter.takes_checkpoints:
        raise UserError(f"{source}: `t2sda export onnx` comes first; an ONNX file is due here")
    if args.batch and args.precision == "int8":
        raise UserError("--batch: int8 is calibrated image by image; leave it out")
    checkpoint = open_checkpoint(source)
    register_datasets_of_run(checkpoint.cfg)
    check_calibration(args)  # mistakes are reported before minutes of work
    evaluation_of(args, checkpoint.taxonomy)
    floats = exporter.float_precisions
    precision = args.precision if args.precision in floats else floats[0]
    written = folder / f"{precision}.onnx"
    report = export_checkpoint(checkpoint, written, args, precision)
    print(f"verified in ONNX Runtime against PyTorch: {report}")
    return written


def export_checkpoint(
    checkpoint: Checkpoint, output: Path, args: argparse.Namespace, precision: str
) -> object:
    """The file of a branch as the arguments ask for it; returns the verification's report."""
    branch = args.branch or "student"
    model = model_of_checkpoint(checkpoint, branch)
    size = tuple(args.size) if args.size else default_image_size(checkpoint.cfg, model.sliding)
    in_windows = model.sliding is not None and size == model.sliding.window
    return export_onnx(
        model,
        checkpoint.taxonomy,
        output,
        image_size=size,
        dynamic=args.dynamic,
        batch_size=args.batch or 1,
        opset=args.opset or OPSET,
        output_kind=args.output_kind or ("logits" if in_windows else "labels"),
        layout=args.layout,
        precision=precision,
        image_bound=tuple(checkpoint.cfg.EVALUATION.IMAGE_SIZE) or None,
        origin=origin_of(checkpoint, branch),
        tolerance=tolerance_of(args) if precision == args.precision else None,
    )


def _quantized(
    reference: Path, args: argparse.Namespace, folder: Path
) -> tuple[Path, list[np.ndarray]]:
    """The source in int8 where that is asked for, and the images that it was calibrated on."""
    if not hasattr(args, "calibration"):
        return reference, []
    if args.precision == "int8" and metadata_of_onnx(reference).precision == "int8":
        if args.calibration or args.num_calibration:
            raise UserError(f"{args.source}: is in int8 already; leave out --calibration")
        return reference, []
    images = calibration_of(args)
    if not images:
        return reference, []
    source = folder / "int8.onnx"
    report = quantize_onnx(reference, source, images, tolerance_of(args))
    print(f"verified in ONNX Runtime against float32: {report}")
    return source, images


def _check_onnx_source(name: str, args: argparse.Namespace) -> None:
    source = Path(args.source)
    if args.branch:
        check_branch(args.branch, metadata_of_onnx(source), source)
    if args.output_kind or args.layout != "nhwc" or args.batch or args.opset:
        raise UserError(
            f"{args.source}: an ONNX file has its output, layout, batch and opset already; leave "
            f"out --output-kind, --layout, --batch and --opset"
        )
    if name == "onnx" and (args.precision != "int8" or args.size or args.dynamic):
        raise UserError(
            f"{args.source}: is an ONNX file already; only --precision int8 makes another of it"
        )


def _is_onnx(args: argparse.Namespace) -> bool:
    return Path(args.source).suffix.lower() == ".onnx"


def _size_text(output: Path) -> str:
    """What an ONNX file takes, for the last line."""
    if output.suffix.lower() != ".onnx":
        return ""
    size = metadata_of_onnx(output).image_size
    return f"{'any size' if size is None else 'x'.join(map(str, size))}, "


def _plugins_in(argv: Sequence[str]) -> list[str]:
    """What `--plugin` names, before it is known which options there are."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--plugin", action="append", default=[])
    return parser.parse_known_args(list(argv))[0].plugin


def _source(exporter: Exporter) -> str:
    return "RUN|CHECKPOINT|FILE.onnx" if exporter.takes_checkpoints else "FILE.onnx"


def build_parser(name: str, exporter: Exporter) -> argparse.ArgumentParser:
    """The one parser of exports: what there is to say follows from what the exporter can do."""
    suffix = exporter.suffixes[0]
    parser = ArgumentParser(
        prog=f"t2sda export {name}",
        description=f"Write a network as FILE{suffix}. It takes uint8 RGB images and gives train "
        f"ids, logits or probabilities of the same size: normalisation, up-sampling and argmax are "
        f"inside. The file is run and compared with its source before it gets its name.",
    )
    parser.add_argument("source", metavar=_source(exporter), help="what is exported")
    parser.add_argument("--output", required=True, metavar=f"FILE{suffix}", help="to write")
    if exporter.takes_checkpoints:
        add_network_arguments(parser)
        if "int8" in exporter.precisions:
            add_calibration_arguments(parser)
        add_verification_arguments(parser)
    else:
        parser.set_defaults(branch=None, size=None, dynamic=False, max_changed=None)
    parser.add_argument(
        "--precision",
        choices=exporter.precisions,
        default=exporter.precisions[0] if exporter.takes_checkpoints else None,
        help=f"default: {exporter.precisions[0]}"
        if exporter.takes_checkpoints
        else "refuse a source or a result that is in another one",
    )
    exporter.add_options(parser)
    add_evaluation_arguments(parser)
    add_dataset_arguments(parser)
    return parser
