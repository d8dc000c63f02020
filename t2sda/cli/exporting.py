"""Arguments of exports: the network, its size, where it comes from, what may differ."""

from __future__ import annotations

import argparse
import hashlib

from fvcore.common.config import CfgNode

from t2sda.cli.common import positive_int
from t2sda.config import dump_config
from t2sda.data.dataset_files import register_dataset_files
from t2sda.data.joined import source_dataset
from t2sda.data.transforms import Resize
from t2sda.engine.checkpoint import Checkpoint
from t2sda.errors import MissingFileError, UserError
from t2sda.export.onnx import OPSET, OPSETS
from t2sda.export.verify import TOLERANCES, Tolerance
from t2sda.modeling.segmentor import Sliding
from t2sda.runtime.metadata import LAYOUTS, OUTPUT_KINDS


def default_image_size(cfg: CfgNode, sliding: Sliding | None = None) -> tuple[int, int]:
    """(height, width) of what the network was scored or trained on, before cropping.

    Of one that slides, its window.

    Raises:
        UserError: if the configuration does not say and the source dataset is not here.
    """
    if sliding is not None:
        return sliding.window
    if cfg.EVALUATION.IMAGE_SIZE:
        height, width = cfg.EVALUATION.IMAGE_SIZE
        return height, width
    try:
        register_dataset_files(cfg.DATASETS.FILES)
        image = source_dataset(cfg).load(0, with_label=False).image
    except MissingFileError as error:
        raise UserError(
            f"the size of the images is not known: EVALUATION.IMAGE_SIZE is empty, and {error}. "
            f"Say it with --size HEIGHT WIDTH"
        ) from None
    return Resize(cfg.DATA.SOURCE_SIZE or None).size_for((image.shape[0], image.shape[1]))


def origin_of(checkpoint: Checkpoint, branch: str = "student") -> dict[str, str | int]:
    """Where the weights come from; the hash is that of the run's config.yaml."""
    config_text = dump_config(CfgNode(checkpoint.config)).encode()
    return {
        "run": checkpoint.path.resolve().parent.name,
        "iteration": checkpoint.iteration,
        "branch": branch,
        "config_sha256": hashlib.sha256(config_text).hexdigest(),
    }


def add_size_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """`--size` or `--dynamic`."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size",
        nargs=2,
        type=positive_int,
        metavar=("HEIGHT", "WIDTH"),
        help=f"of the images; default: {default}",
    )
    size.add_argument(
        "--dynamic", action="store_true", help="take any number of images of any size"
    )


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """What is exported, and what goes in and comes out."""
    parser.add_argument(
        "--branch",
        choices=("student", "teacher"),
        help="which network of the checkpoint (default: student); of an ONNX file it must be "
        "the one that it holds",
    )
    add_size_arguments(
        parser,
        "EVALUATION.IMAGE_SIZE of the run, or the size of its source images; of a network that "
        "slides, its window",
    )
    parser.add_argument(
        "--output-kind",
        choices=OUTPUT_KINDS,
        help="uint8 train ids (default), or float32 logits (of a network that slides the default) "
        "or probabilities",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="nhwc",
        help="of the input: as decoders give it (default), or channels first",
    )
    parser.add_argument(
        "--batch",
        type=positive_int,
        metavar="N",
        help="images that a graph of one size takes at once, no more and no fewer; default: 1",
    )
    parser.add_argument(
        "--opset",
        type=int,
        choices=OPSETS,
        help=f"version of ONNX's operators, for older runtimes; default: {OPSET}",
    )


def add_verification_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verification may find."""
    parser.add_argument(
        "--max-changed",
        type=_share,
        metavar="SHARE",
        help="of the pixels that may get another label; default: that of the precision",
    )


def tolerance_of(args: argparse.Namespace) -> Tolerance | None:
    """That of `--max-changed` and `--precision`."""
    if args.max_changed is None:
        return None
    return TOLERANCES[args.precision].allowing(args.max_changed)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no share from 0 to 1")
    return value
