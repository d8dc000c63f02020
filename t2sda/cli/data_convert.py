"""`t2sda data convert FORMAT FILE`: annotations of other tools as a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from t2sda.cli.common import ArgumentParser
from t2sda.data.conversion.annotations import AnnotatedImage, Annotations
from t2sda.data.conversion.coco import read_coco
from t2sda.data.conversion.cvat import read_cvat
from t2sda.data.conversion.idd import read_idd
from t2sda.data.conversion.labelme import read_labelme
from t2sda.data.conversion.labelstudio import read_labelstudio
from t2sda.data.conversion.writing import (
    DESCRIPTION_NAME,
    Classes,
    chosen_classes,
    write_dataset,
)
from t2sda.data.label_tables import TAXONOMIES
from t2sda.engine.metrics import standard_console
from t2sda.engine.progress import ConsoleProgress
from t2sda.errors import MissingFileError, UserError
from t2sda.files import is_folder
from t2sda.registry import nearest_first

READERS: dict[str, Callable[[Path], Annotations]] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "labelme": read_labelme,
    "labelstudio": read_labelstudio,
    "idd": read_idd,
}
"""By the format's name: file or folder -> what it says."""
OF_TRAIN_IDS = {
    name: taxonomy
    for name, taxonomy in TAXONOMIES.items()
    if not taxonomy.train_ids and not taxonomy.label_colors
}
IMAGES_OF_IDD = "leftImg8bit"


def command(argv: Sequence[str]) -> int:
    """Convert, and say what was written and what was not."""
    args = build_parser().parse_args(argv)
    is_idd = args.format == "idd"
    images_dir = args.images or (args.annotations / IMAGES_OF_IDD if is_idd else None)
    if images_dir is None:
        raise UserError("--images DIR: name the folder with the images that were annotated")
    if not is_folder(images_dir):
        raise MissingFileError(f"--images {images_dir}: no such folder")
    found = READERS[args.format](args.annotations)
    taxonomy = args.taxonomy or ("cityscapes_19" if is_idd and not args.classes else None)
    classes = chosen_classes(found, _names(args.classes, taxonomy), taxonomy, args.background)
    console = standard_console()
    name = args.name or args.output.resolve().name
    progress = ConsoleProgress(console)
    written = write_dataset(found, classes, images_dir, args.output, name, progress)
    _say(console, found, written, classes, args.output / DESCRIPTION_NAME)
    return 0


def _names(classes: Sequence[str], taxonomy: str | None) -> Sequence[str]:
    if taxonomy is None:
        return classes
    if classes:
        raise UserError("--classes: have no effect beside --taxonomy; leave one of them out")
    if taxonomy not in OF_TRAIN_IDS:
        near = ", ".join(nearest_first(taxonomy, list(OF_TRAIN_IDS)))
        raise UserError(
            f"--taxonomy {taxonomy}: no label set whose files hold train ids, as those written "
            f"here do; nearest first: {near}"
        )
    return OF_TRAIN_IDS[taxonomy].class_names


def _say(
    console: Console,
    found: Annotations,
    written: Sequence[AnnotatedImage],
    classes: Classes,
    description: Path,
) -> None:
    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    counts = found.labels
    line(f"{len(written)} images, {sum(counts.values())} shapes")
    if left_out := len(found.images) - len(written):
        line(f"left out: {left_out} images without a shape; --background NAME takes them as well")
    ignored = [f"{name} ({count})" for name, count in counts.items() if name not in classes.names]
    if ignored:
        line(f"ignored, as they are no classes: {', '.join(sorted(ignored))}")
    for kind, count in found.passed_over.items():
        line(f"passed over: {kind} ({count})")
    line(f"classes: {', '.join(classes.names)}")
    line(f"{description}: look at it with t2sda data check {description}")


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda data convert",
        description="Draw the annotations of another tool as label files, and describe them and "
        "their images in a dataset.yaml. Images stay where they are. Where shapes overlap, the "
        "later one counts; pixels that none covers are ignored, or --background.",
    )
    parser.add_argument("format", choices=READERS, metavar="|".join(READERS))
    parser.add_argument(
        "annotations",
        type=Path,
        metavar="FILE|DIR",
        help="COCO's or Label Studio's JSON, the XML of 'CVAT for images 1.1', LabelMe's folder, "
        "IDD's folder with gtFine in it",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="the images; IDD's are in its leftImg8bit"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--name", help="of the dataset (default: that of the output folder)")
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="in the order of their train ids; other labels are ignored (default: all)",
    )
    parser.add_argument(
        "--taxonomy", metavar="NAME", help="classes of a known label set, such as cityscapes_19"
    )
    parser.add_argument(
        "--background", metavar="NAME", help="class of the pixels that no shape covers"
    )
    return parser
