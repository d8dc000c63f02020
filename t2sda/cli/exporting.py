"""What the exports share: sizes, pictures to calibrate on, and scores before and after."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.config import dump_config
from t2sda.data.catalog import DATASETS, open_dataset
from t2sda.data.dataset_files import register_dataset_files
from t2sda.data.datasets import Sample, SegmentationDataset
from t2sda.data.transforms import Resize
from t2sda.engine.checkpoint import Checkpoint
from t2sda.errors import MissingFileError, UserError
from t2sda.evaluation.evaluator import PredictsLabels, evaluate
from t2sda.export.verify import TOLERANCES, Tolerance
from t2sda.inference.pictures import read_picture
from t2sda.inference.sources import find_pictures


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


def origin_of(checkpoint: Checkpoint, branch: str = "student") -> dict[str, str | int]:
    """Where the weights come from; the hash is that of the run's config.yaml."""
    config_text = dump_config(checkpoint.cfg).encode()
    return {
        "run": checkpoint.path.resolve().parent.name,
        "iteration": checkpoint.iteration,
        "branch": branch,
        "config_sha256": hashlib.sha256(config_text).hexdigest(),
    }


def calibration_pictures(source: str, count: int) -> list[np.ndarray]:
    """`count` pictures of a dataset or folder, evenly spread, (H, W, 3) uint8 RGB.

    Raises:
        UserError: if it is neither, or a picture cannot be read.
    """
    if source in DATASETS.names() and not Path(source).exists():
        dataset = open_dataset(source)
        return [
            dataset.load(index, with_label=False).image for index in _spread(len(dataset), count)
        ]
    found = find_pictures(source, Path(os.devnull))
    return [read_picture(found[index].path) for index in _spread(len(found), count)]


def _spread(total: int, count: int) -> list[int]:
    count = min(total, count)
    return [index * total // count for index in range(count)]


class FirstSamples(SegmentationDataset):
    """Pictures of a dataset, evenly spread: a score in less time."""

    def __init__(self, dataset: SegmentationDataset, count: int) -> None:
        self.dataset = dataset
        self.name = dataset.name
        self.taxonomy = dataset.taxonomy
        self.class_groups = dataset.class_groups
        self._indices = _spread(len(dataset), count or len(dataset))

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def labelled(self) -> bool:
        """As the dataset's."""
        return self.dataset.labelled

    def load(self, index: int, with_label: bool = True) -> Sample:
        """The sample that stands for `index`."""
        return self.dataset.load(self._indices[index], with_label)

    def load_label(self, index: int) -> np.ndarray:
        """The label that stands for `index`."""
        return self.dataset.load_label(self._indices[index])

    def label_identity(self) -> Iterator[str]:
        """The dataset's, and which of its pictures are taken."""
        yield from self.dataset.label_identity()
        yield f"{self._indices}"


def print_scores(
    dataset_name: str, limit: int, before: PredictsLabels, after: PredictsLabels
) -> None:
    """MIoU of the source and of what was written, on a labelled set."""
    dataset = FirstSamples(open_dataset(dataset_name), limit)
    taxonomy = before.taxonomy  # type: ignore[attr-defined]
    scores = [evaluate(model, dataset, taxonomy).mean_iou for model in (before, after)]
    print(
        f"mIoU on {len(dataset)} pictures of {dataset_name}: {100 * scores[0]:.2f} before, "
        f"{100 * scores[1]:.2f} after ({100 * (scores[1] - scores[0]):+.2f})"
    )


def add_size_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """`--size` or `--dynamic`."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size",
        nargs=2,
        type=side,
        metavar=("HEIGHT", "WIDTH"),
        help=f"of the pictures; default: {default}",
    )
    size.add_argument(
        "--dynamic", action="store_true", help="take any number of pictures of any size"
    )


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """`--calibration`, and what the verification may find and is to score."""
    parser.add_argument(
        "--calibration",
        metavar="DIR|DATASET",
        help="pictures of the target domain that int8 is calibrated on",
    )
    parser.add_argument(
        "--num-calibration", type=side, default=48, metavar="N", help="how many (default: 48)"
    )
    parser.add_argument(
        "--max-changed",
        type=_share,
        metavar="SHARE",
        help="of the pixels that may get another label; default: that of the precision",
    )
    parser.add_argument(
        "--evaluate", metavar="DATASET", help="labelled set to score before and after"
    )
    parser.add_argument(
        "--num-evaluated", type=side, default=0, metavar="N", help="how many (default: all)"
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="what the run was started with; repeatable",
    )


def tolerance_of(args: argparse.Namespace) -> Tolerance | None:
    """That of `--max-changed` and `--precision`."""
    if args.max_changed is None:
        return None
    return TOLERANCES[args.precision]._replace(changed=args.max_changed)


def calibration_of(args: argparse.Namespace) -> list[np.ndarray]:
    """The pictures of `--calibration`; UserError if int8 was asked for without, or the reverse."""
    if args.precision == "int8" and not args.calibration:
        raise UserError(
            "--precision int8 needs --calibration DIR|DATASET: pictures of the target domain"
        )
    if args.precision != "int8" and args.calibration:
        raise UserError(f"--calibration: nothing to calibrate for --precision {args.precision}")
    return calibration_pictures(args.calibration, args.num_calibration) if args.calibration else []


def side(text: str) -> int:
    """A number of pixels or pictures."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of pixels or pictures")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no share from 0 to 1")
    return value
