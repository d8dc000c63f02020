"""Images that exports calibrate on, and labelled ones that they score source and result on."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.cli.common import positive_int
from t2sda.data.catalog import open_dataset
from t2sda.data.dataset_files import register_dataset_files
from t2sda.data.datasets import Sample, SegmentationDataset
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.evaluation.evaluator import check_classes, evaluate
from t2sda.images import read_image
from t2sda.inference.sources import find_sources
from t2sda.registry import UnknownNameError
from t2sda.runtime.predictor import Predictor

NUM_CALIBRATION = 48


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """`--calibration`."""
    parser.add_argument(
        "--calibration",
        metavar="DIR|DATASET",
        help="images of the target domain that int8 is calibrated on",
    )
    parser.add_argument(
        "--num-calibration",
        type=positive_int,
        metavar="N",
        help=f"how many (default: {NUM_CALIBRATION})",
    )


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """`--evaluate`."""
    parser.add_argument(
        "--evaluate", metavar="DATASET", help="labelled set to score before and after"
    )
    parser.add_argument(
        "--num-evaluated",
        type=positive_int,
        metavar="N",
        help="how many of its images",
    )


def register_datasets_of_run(cfg: CfgNode) -> None:
    """What the run's DATASETS.FILES register, of the files that are still where they were."""
    register_dataset_files(path for path in cfg.DATASETS.FILES if Path(path).is_file())


def check_calibration(args: argparse.Namespace) -> None:
    """Raise UserError if int8 was asked for without `--calibration`, or the reverse."""
    if args.precision == "int8" and not args.calibration:
        raise UserError(
            "--precision int8 needs --calibration DIR|DATASET: images of the target domain"
        )
    if args.precision != "int8" and args.calibration:
        raise UserError(f"--calibration: nothing to calibrate for --precision {args.precision}")
    if args.num_calibration and not args.calibration:
        raise UserError("--num-calibration: there is no --calibration")


def calibration_of(args: argparse.Namespace) -> list[np.ndarray]:
    """The images of `--calibration`, none without; raises what `check_calibration` does."""
    check_calibration(args)
    if not args.calibration:
        return []
    return calibration_images(args.calibration, args.num_calibration or NUM_CALIBRATION)


def calibration_images(source: str, count: int) -> list[np.ndarray]:
    """`count` images of a folder, pattern or dataset, evenly spread, (H, W, 3) uint8 RGB.

    Says how many of how many are taken, and the first and last of them.

    Raises:
        UserError: if it is none of these, or an image cannot be read.
    """
    path = Path(source)
    if glob.has_magic(source) or path.exists():
        found = [
            item.path
            for item in find_sources(source, Path(os.devnull)).sources
            if not item.is_video
        ]
        if not found:
            raise UserError(f"--calibration {source}: holds videos alone; give images")
        taken = [found[index] for index in _spread(len(found), count)]
        _say_taken(len(taken), len(found), str(taken[0]), str(taken[-1]))
        return [read_image(image) for image in taken]
    try:
        dataset = open_dataset(source)
    except UnknownNameError as error:
        raise UserError(f"--calibration {source}: no such file or folder, and {error}") from None
    indices = _spread(len(dataset), count)
    names = [dataset.name_of(index) for index in (indices[0], indices[-1])]
    _say_taken(len(indices), len(dataset), *names)
    return [dataset.load(index, with_label=False).image for index in indices]


def _say_taken(count: int, total: int, first: str, last: str) -> None:
    print(f"calibrating on {count} of {total} images, from {first} to {last}")


def _spread(total: int, count: int) -> list[int]:
    count = min(total, count)
    return [index * total // count for index in range(count)]


class SpreadSamples(SegmentationDataset):
    """Images of a dataset, evenly spread: a score in less time."""

    def __init__(self, dataset: SegmentationDataset, count: int) -> None:
        self.dataset = dataset
        self.name = dataset.name
        self.taxonomy = dataset.taxonomy
        self.class_groups = dataset.class_groups
        self._indices = _spread(len(dataset), count)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def labelled(self) -> bool:
        """As the dataset's."""
        return self.dataset.labelled

    def relative_name(self, index: int) -> str:
        """The name of the image that stands for `index`."""
        return self.dataset.relative_name(self._indices[index])

    def load(self, index: int, with_label: bool = True) -> Sample:
        """The sample that stands for `index`."""
        return self.dataset.load(self._indices[index], with_label)

    def load_label(self, index: int) -> np.ndarray:
        """The label that stands for `index`."""
        return self.dataset.load_label(self._indices[index])

    def label_identity(self) -> Iterator[str]:
        """The dataset's, and which of its images are taken."""
        yield from self.dataset.label_identity()
        yield f"{self._indices}"


def evaluation_of(args: argparse.Namespace, taxonomy: Taxonomy) -> SegmentationDataset | None:
    """The set of `--evaluate`, before the minutes of work: UserError if it cannot be used."""
    if not args.evaluate:
        if args.num_evaluated:
            raise UserError("--num-evaluated: there is no --evaluate")
        return None
    dataset = open_dataset(args.evaluate)
    check_classes(dataset, taxonomy)
    return SpreadSamples(dataset, args.num_evaluated) if args.num_evaluated else dataset


def print_scores(dataset: SegmentationDataset, before: Predictor, after: Predictor) -> None:
    """MIoU of the source and of what was written, on a labelled set."""
    scores = [evaluate(model, dataset).reported.mean_iou for model in (before, after)]
    print(
        f"mIoU on {len(dataset)} images of {dataset.name}: {100 * scores[0]:.2f} before, "
        f"{100 * scores[1]:.2f} after ({100 * (scores[1] - scores[0]):+.2f})"
    )
