"""`t2sda export`: a trained network as a file for other runtimes."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from t2sda.cli.common import USER_ERROR, load_components
from t2sda.config import dump_config
from t2sda.data.catalog import open_dataset
from t2sda.data.dataset_files import register_dataset_files
from t2sda.data.transforms import Resize
from t2sda.engine.checkpoint import Checkpoint
from t2sda.errors import MissingFileError, UserError
from t2sda.export.deployable import OUTPUT_KINDS
from t2sda.export.onnx import export_onnx
from t2sda.inference.checkpoints import model_of_checkpoint, open_checkpoint


def command(argv: Sequence[str]) -> int:
    """Export in the format that the first argument names."""
    if argv and argv[0] == "onnx":
        return onnx_command(argv[1:])
    asked_for_help = bool(argv) and argv[0] in ("-h", "--help")
    print(
        "usage: t2sda export onnx RUN|CHECKPOINT --output FILE [options]",
        "(t2sda export onnx --help)",
        file=sys.stdout if asked_for_help else sys.stderr,
    )
    return 0 if asked_for_help else USER_ERROR


def onnx_command(argv: Sequence[str]) -> int:
    """Write an ONNX file of the student, verified against PyTorch."""
    args = _parser().parse_args(argv)
    load_components(args.plugin)
    checkpoint = open_checkpoint(Path(args.checkpoint))
    cfg = checkpoint.cfg
    image_size = tuple(args.size) if args.size else default_image_size(cfg)
    report = export_onnx(
        model_of_checkpoint(checkpoint),
        checkpoint.taxonomy,
        Path(args.output),
        image_size=image_size,
        dynamic=args.dynamic,
        output_kind=args.output_kind,
        image_bound=tuple(cfg.EVALUATION.IMAGE_SIZE) or None,
        origin=origin_of(checkpoint),
    )
    size = "any size" if args.dynamic else "x".join(map(str, image_size))
    print(f"verified in ONNX Runtime against PyTorch: {report}")
    print(f"{checkpoint.path} -> {args.output} ({size}, {args.output_kind})")
    return 0


def default_image_size(cfg: CfgNode) -> tuple[int, int]:
    """(height, width) of what the network was scored or trained on, before cropping.

    Raises:
        UserError: if the configuration does not say and the source dataset is not here.
    """
    if cfg.EVALUATION.IMAGE_SIZE:
        height, width = cfg.EVALUATION.IMAGE_SIZE
        return height, width
    try:
        register_dataset_files(cfg.DATASETS.FILES)
        image = open_dataset(cfg.DATASETS.SOURCE).load(0, with_label=False).image
    except MissingFileError as error:
        raise UserError(
            f"the size of the pictures is not known: EVALUATION.IMAGE_SIZE is empty, and {error}. "
            f"Say it with --size HEIGHT WIDTH"
        ) from None
    return Resize(cfg.DATA.SOURCE_SIZE or None).size_for((image.shape[0], image.shape[1]))


def origin_of(checkpoint: Checkpoint) -> dict[str, str | int]:
    """Where the weights come from; the hash is that of the run's config.yaml."""
    config_text = dump_config(checkpoint.cfg).encode()
    return {
        "run": checkpoint.path.resolve().parent.name,
        "iteration": checkpoint.iteration,
        "branch": "student",
        "config_sha256": hashlib.sha256(config_text).hexdigest(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="t2sda export onnx",
        description="Write the student as an ONNX file that takes uint8 RGB pictures "
        "(batch, height, width, 3) and gives train ids or logits of the same size: "
        "normalisation, up-sampling and argmax are inside. The file is run in ONNX Runtime and "
        "compared with PyTorch before it gets its name.",
    )
    parser.add_argument("checkpoint", metavar="RUN|CHECKPOINT", help="run folder or checkpoint")
    parser.add_argument("--output", required=True, metavar="FILE", help="the ONNX file to write")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size",
        nargs=2,
        type=_side,
        metavar=("HEIGHT", "WIDTH"),
        help="of the pictures; default: EVALUATION.IMAGE_SIZE of the run, or the size of its "
        "source images",
    )
    size.add_argument(
        "--dynamic", action="store_true", help="take any number of pictures of any size"
    )
    parser.add_argument(
        "--output-kind",
        choices=OUTPUT_KINDS,
        default="labels",
        help="uint8 train ids (default), or float32 logits",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="what the run was started with; repeatable",
    )
    return parser


def _side(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of pixels")
    return int(text)
