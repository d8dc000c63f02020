"""`t2sda report`: one page about one or more runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, distinct_names, load_datasets
from t2sda.cli.loading import add_device_argument
from t2sda.errors import UserError
from t2sda.files import atomic_write, check_writable_file
from t2sda.report.gallery import Gallery, build_gallery
from t2sda.report.page import describe, render
from t2sda.report.read import Run, check_same_classes, figures_in, groups_of, read_run
from t2sda.resources import named_shortages
from t2sda.training.folder import register_datasets_of_runs


def command(argv: Sequence[str]) -> int:
    """Write the page, whole or not at all."""
    args = build_parser().parse_args(argv)
    load_datasets(args)
    output = Path(args.output)
    check_writable_file(output, "--output")
    runs = _read(args.runs)
    check_same_classes(runs)
    register_datasets_of_runs(map(Path, args.runs), (name for run in runs for name in run.scores))
    groups = groups_of(runs)
    content = describe(groups, args.blocks, _figures(args.analysis))
    for note in content["notes"]:
        print(note)
    gallery = Gallery(left_out=("The images were left out by --no-gallery.",))
    if args.gallery:
        with named_shortages():
            gallery = build_gallery(groups, args.images, args.device)
        for text in gallery.left_out:
            print(f"not in the gallery: {text}")
    page = render(content, gallery)
    atomic_write(output, page)
    print(f"{output}: {len(runs)} run(s), {len(page.encode()) / 1e6:.1f} MB, opens anywhere")
    return 0


def _read(folders: Sequence[str]) -> list[Run]:
    names = distinct_names(folders)
    return [read_run(Path(folder), name) for folder, name in zip(folders, names, strict=True)]


def _figures(folders: Sequence[str]) -> list[Path]:
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not figures_in(path):
            raise UserError(
                f"--analysis {path}: holds no figure of a finished `t2sda analyze`; give what its "
                f"--output named"
            )
    return [figure for path in paths for figure in figures_in(path)]


def _number_of_images(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0; --no-gallery for none")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda report",
        description="One HTML page about runs, in a file that needs no other and no network. Runs "
        "whose settings differ by the seed alone are one group; the first group is what the others "
        "are compared with.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of `t2sda train`")
    parser.add_argument("--output", required=True, metavar="FILE", help="the page to write")
    parser.add_argument(
        "--images",
        type=_number_of_images,
        default=6,
        metavar="N",
        help="of each dataset in the gallery: the worst, the best, and those on which the groups "
        "differ most (default: 6)",
    )
    parser.add_argument(
        "--blocks",
        metavar="PATTERN",
        help="regular expression found in every image's name: images with the same text of its "
        "first group, such as the frames of a video, are drawn together in the bootstrap",
    )
    parser.add_argument(
        "--analysis",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of `t2sda analyze --output`; those in the runs' folders are found anyway",
    )
    parser.add_argument(
        "--no-gallery",
        dest="gallery",
        action="store_false",
        help="no images: neither datasets nor checkpoints are read",
    )
    add_device_argument(parser)
    add_dataset_arguments(parser)
    return parser
