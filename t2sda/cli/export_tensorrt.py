"""`t2sda export tensorrt`: an engine for NVIDIA GPUs."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.table import Table

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets
from t2sda.cli.export_data import add_evaluation_arguments, evaluation_of, print_scores
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.export.engines import ExportedEngine, export_engine, metadata_of_onnx, verify_engine
from t2sda.export.runtime import load_model
from t2sda.export.tensorrt import TARGETS, BuiltEngine, EngineSettings, Profile, Shape


def command(argv: Sequence[str]) -> int:
    """Build an engine, or verify one that was built without a GPU."""
    args = _parser().parse_args(argv)
    load_datasets(args)
    settings = EngineSettings(
        target=args.target,
        precision=args.precision,
        profile=Profile(*args.profile) if args.profile else None,
        timing_cache=Path(args.timing_cache) if args.timing_cache else None,
        version_compatible=args.version_compatible,
        hardware_compatible=args.hardware_compatible,
        compute_capabilities=tuple(args.compute_capability),
    )
    source, output = Path(args.onnx), Path(args.output)
    labelled = evaluation_of(args, metadata_of_onnx(source).taxonomy)
    if labelled and not torch.cuda.is_available():
        raise UserError(
            "--evaluate: no GPU is usable here that could run the engine; leave it out, and give "
            "it with --verify-only where there is one"
        )
    if args.verify_only:
        print(f"verified on this GPU: {verify_engine(source, output)}")
        print(f"{output}.unverified -> {output}")
    else:
        exported = export_engine(source, output, settings)
        if args.inspect:
            standard_console().print(_table(exported.built))
        _conclude(exported, source, output)
        if exported.report is None:
            if labelled:
                print(f"not scored on {labelled.name}: that takes --verify-only as well")
            return 0
    if labelled:
        print_scores(labelled, load_model(source), load_model(output, device="cuda"))
    return 0


def _conclude(exported: ExportedEngine, source: Path, output: Path) -> None:
    built = exported.built
    print(
        f"{source} -> {exported.path} ({len(built.content) / 1e6:.1f} MB, {built.precision}, "
        f"version {built.version})"
    )
    if exported.report is not None:
        print(f"verified on this GPU: {exported.report}")
    else:
        print(
            f"not run: no GPU that it was built for is usable here. Where there is one: "
            f"t2sda export tensorrt {source} --output {output} --verify-only"
        )


def _table(built: BuiltEngine) -> Table:
    """How many layers of a kind are in which precision."""
    what = (
        "engine, by its inspector"
        if built.inspected
        else "network as parsed (no GPU here loads it)"
    )
    table = Table(title=f"layers of the {what}", title_justify="left")
    for name in ("kind", "precision", "layers", "the first of them"):
        table.add_column(name)
    counts = Counter((layer.kind, layer.precision) for layer in built.layers)
    first = {(layer.kind, layer.precision): layer.name for layer in reversed(built.layers)}
    for (kind, precision), count in sorted(counts.items()):
        table.add_row(kind, precision, str(count), first[kind, precision])
    return table


def _shape(text: str) -> Shape:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if found is None or "0" in found.groups():
        raise argparse.ArgumentTypeError(f"'{text}' is no batch like 1x512x1024")
    batch, height, width = map(int, found.groups())
    return batch, height, width


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="t2sda export tensorrt",
        description="Build an engine of an ONNX file of `t2sda export onnx`. Its precision is "
        "that of the file. Where a GPU can run it, it is compared with ONNX Runtime before it "
        "gets its name; elsewhere it is written as FILE.unverified.",
    )
    parser.add_argument("onnx", metavar="FILE.onnx")
    parser.add_argument("--output", required=True, metavar="FILE", help="the engine to write")
    parser.add_argument(
        "--target",
        choices=tuple(TARGETS),
        default="tensorrt",
        help="engines of one do not load in the other; tensorrt-rtx builds without a GPU",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="refuse a file or an engine that is in another one",
    )
    parser.add_argument(
        "--profile",
        nargs=3,
        type=_shape,
        metavar=("SMALLEST", "USUAL", "LARGEST"),
        help="batches BxHxW that an engine of a file of any size takes, such as 1x256x512",
    )
    parser.add_argument(
        "--timing-cache", metavar="FILE", help="reused between builds; TensorRT only"
    )
    parser.add_argument(
        "--version-compatible",
        action="store_true",
        help="loads in later versions too; TensorRT only",
    )
    parser.add_argument(
        "--hardware-compatible", action="store_true", help="loads on all GPUs from Ampere on"
    )
    parser.add_argument(
        "--compute-capability",
        action="append",
        default=[],
        metavar="X.Y",
        help="GPU to build for, repeatable; TensorRT-RTX only (default: the one here, or 8.0)",
    )
    parser.add_argument("--inspect", action="store_true", help="print a table of the layers")
    parser.add_argument(
        "--verify-only",
        action="store_true",
        help="run FILE.unverified on this GPU and give it its name",
    )
    add_evaluation_arguments(parser)
    add_dataset_arguments(parser)
    return parser
