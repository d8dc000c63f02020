"""`t2sda export web`: a page that runs a network in the visitor's browser."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets, positive_int
from t2sda.cli.export import export_checkpoint
from t2sda.cli.export_data import register_datasets_of_run
from t2sda.errors import UserError
from t2sda.export.web import prepared, write_site
from t2sda.runtime.checkpoints import open_checkpoint


def command(argv: Sequence[str]) -> int:
    """Export what is no ONNX file yet, and write the site."""
    args = build_parser().parse_args(argv)
    load_datasets(args)
    sources = [Path(source) for source in (args.source, args.before) if source]
    _check_options(args, sources)
    args.precision = args.precision or "fp32"
    site = Path(args.output)
    runtime = prepared(site, Path(args.onnxruntime_web) if args.onnxruntime_web else None)
    with tempfile.TemporaryDirectory() as folder:
        models = [_as_onnx(source, args, Path(folder)) for source in sources]
        num_bytes = write_site(
            models,
            site,
            examples=[Path(example) for example in args.example],
            runtime=runtime,
        )
    print(
        f"{' and '.join(map(str, sources))} -> {site} ({num_bytes / 1e6:.1f} MB); any web server "
        f"can hold it, for a look: python -m http.server --bind 127.0.0.1 --directory {site}"
    )
    return 0


def _check_options(args: argparse.Namespace, sources: Sequence[Path]) -> None:
    given = [f"--{name}" for name in ("size", "branch", "precision") if getattr(args, name)]
    if given and all(map(_is_onnx, sources)):
        raise UserError(
            f"{given[0]}: {args.source} is an ONNX file, which is published as it is; leave "
            f"{given[0]} out, or give the run"
        )


def _is_onnx(source: Path) -> bool:
    return source.suffix.lower() == ".onnx"


def _as_onnx(source: Path, args: argparse.Namespace, folder: Path) -> Path:
    if _is_onnx(source):
        return source
    checkpoint = open_checkpoint(source)
    register_datasets_of_run(checkpoint.cfg)
    written = folder / f"{len(list(folder.iterdir()))}.onnx"
    report = export_checkpoint(checkpoint, written, args, args.precision)
    print(f"verified in ONNX Runtime against PyTorch: {report}")
    return written


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda export web",
        description="Write a static site: one page on which visitors segment their own images, or "
        "what their camera sees, on their own machine. Nothing leaves the browser.",
    )
    parser.add_argument(
        "source",
        metavar="RUN|CHECKPOINT|FILE.onnx",
        help="the adapted network; a file must be of one size and give labels",
    )
    parser.add_argument(
        "--before",
        metavar="RUN|CHECKPOINT|FILE.onnx",
        help="a network that was not adapted, to compare with by a slider; default: the image",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="of the site")
    parser.add_argument(
        "--size",
        nargs=2,
        type=positive_int,
        metavar=("HEIGHT", "WIDTH"),
        help="that the network sees; default: that of `t2sda export onnx`",
    )
    parser.add_argument("--branch", choices=("student", "teacher"), help="default: student")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        help="default: fp32; fp16 halves the download; it is computed in float32 all the same",
    )
    parser.add_argument(
        "--example",
        action="append",
        default=[],
        metavar="IMAGE",
        help="photograph to start with, repeatable; it is published with the site",
    )
    parser.add_argument(
        "--onnxruntime-web",
        metavar="TGZ",
        help="the npm package, where npm cannot get it; see docs/serving.md",
    )
    add_dataset_arguments(parser)
    parser.set_defaults(dynamic=False, output_kind="labels", layout="nhwc", max_changed=None)
    parser.set_defaults(batch=None, opset=None)  # one image at a time
    return parser
