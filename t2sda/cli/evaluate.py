"""`t2sda evaluate`: score models of any runtime on labelled datasets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.cli.common import ArgumentParser, distinct_names, positive_int
from t2sda.cli.loading import add_branch_argument, add_model_arguments, description_of
from t2sda.cli.score_table import print_scores
from t2sda.data.catalog import open_dataset
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.relabelled import check_own_png_names, png_name
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import is_main, process_group
from t2sda.engine.checkpoint import resolve_checkpoint
from t2sda.engine.device import choose_device
from t2sda.engine.metrics import standard_console
from t2sda.engine.progress import ConsoleProgress
from t2sda.errors import UserError
from t2sda.evaluation.bootstrap import blocks_of, mean_iou_difference
from t2sda.evaluation.entries import FILE_NAME, Protocol, Scores, add_entries, check_can_add
from t2sda.evaluation.evaluator import KeepLabels, check_classes, evaluate
from t2sda.evaluation.model_file import ModelFile
from t2sda.evaluation.views import Views, protocol_for
from t2sda.files import make_writable_dir
from t2sda.inference.results import check_label_ids, label_ids, write_png
from t2sda.plugins import load_components
from t2sda.resources import named_shortages
from t2sda.runtime.loading import load_model
from t2sda.runtime.predictor import Predictor
from t2sda.training.folder import register_datasets_of_runs


@dataclass(frozen=True)
class Scored:
    """A model that is scored.

    Attributes:
        name: in tables.
        file: of it.
        predictor: ready to run.
        protocol: that it is scored with.
        output: where its scores go; None: nowhere.
    """

    name: str
    file: ModelFile
    predictor: Predictor
    protocol: Protocol
    output: Path | None


def command(argv: Sequence[str]) -> int:
    """Score every model on every dataset; returns 0."""
    args = build_parser().parse_args(argv)
    load_components(args.plugin, args.file)
    register_datasets_of_runs(map(Path, args.models), args.data)
    _check_arguments(args)
    with process_group(choose_device(args.device)), named_shortages():
        datasets = [open_dataset(name) for name in args.data]
        if args.blocks is not None:
            for dataset in datasets:
                blocks_of(_names(dataset), args.blocks)
        names = distinct_names(args.models)
        models = [_opened(*pair, args) for pair in zip(args.models, names, strict=True)]
        for model in models:
            _check_fits(model, datasets, args)
        console = standard_console(quiet=not is_main())
        for dataset in datasets:
            found = {model.name: _score(model, dataset, args) for model in models}
            if is_main():
                print_scores(console, found, _differences(found, args.blocks))
    return 0


def _score(model: Scored, dataset: SegmentationDataset, args: argparse.Namespace) -> Scores:
    scores = evaluate(
        model.predictor,
        dataset,
        model.protocol,
        boundary=args.boundary,
        calibration=args.calibration,
        keep=_keep(args, dataset, model.predictor.taxonomy),
        progress=ConsoleProgress(standard_console(quiet=not is_main())),
    )
    if not any(map(any, scores.confusion)):
        raise UserError(
            f"dataset '{dataset.name}': no pixel of {len(dataset)} images is labelled, so there "
            f"is no score; check its labels with `t2sda data check {dataset.name}`"
        )
    if is_main() and model.output is not None:
        entry = model.file.entry(scores, model.predictor, model.output.parent)
        add_entries(model.output, [entry])
    return scores


def _opened(model: str, name: str, args: argparse.Namespace) -> Scored:
    path = Path(model)
    file = resolve_checkpoint(path)
    predictor = load_model(
        file,
        args.runtime,
        args.device,
        threads=args.threads,
        description=description_of(args),
        branch=args.branch,
    )
    protocol = protocol_of(predictor, args)
    return Scored(name, ModelFile.of(file), predictor, protocol, _output(path, args))


def protocol_of(predictor: Predictor, args: argparse.Namespace) -> Protocol:
    """What the arguments of `add_protocol_arguments` say."""
    return protocol_for(
        predictor,
        image_size=_pair(args.image_size),
        window=_pair(args.window),
        step=_pair(args.step),
        flip=args.flip,
        scales=args.scales,
    )


def _output(path: Path, args: argparse.Namespace) -> Path | None:
    """`--output`, or the file of the run's folder; None for other files."""
    if args.output:
        return Path(args.output)
    return path / FILE_NAME if path.is_dir() else None


def _check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError for what contradicts itself, before anything is loaded."""
    if len(set(args.data)) < len(args.data):
        raise UserError(f"--data: {' '.join(args.data)} lists one twice; give each once")
    if args.blocks is not None and len(args.models) < 2:
        raise UserError("--blocks: a difference needs two models; give another MODEL")
    if args.predictions and len(args.models) > 1:
        raise UserError("--predictions: of one model at a time; give one MODEL")


def _check_fits(
    model: Scored, datasets: Sequence[SegmentationDataset], args: argparse.Namespace
) -> None:
    """Raise UserError for what would fail after minutes of work."""
    Views(model.predictor, model.protocol, with_confidence=args.calibration)
    for dataset in datasets:
        check_classes(dataset, model.predictor.taxonomy)
    if model.output is not None and is_main():
        check_can_add(model.output, "--output")
    if args.predictions:
        check_label_ids(model.predictor.taxonomy, "--predictions")
        make_writable_dir(Path(args.predictions), "--predictions")
        for dataset in datasets:
            check_own_png_names(dataset, "--predictions")


def _keep(args: argparse.Namespace, dataset: SegmentationDataset, taxonomy: Taxonomy) -> KeepLabels:
    """Writes predictions as the benchmark server of Cityscapes takes them, if asked to."""

    def keep(name: str, labels: np.ndarray) -> None:
        if args.predictions:
            path = Path(args.predictions, dataset.name, png_name(name))
            write_png(path, label_ids(labels, taxonomy))

    return keep


def _names(dataset: SegmentationDataset) -> list[str]:
    return [dataset.relative_name(index) for index in range(len(dataset))]


def _differences(found: dict[str, Scores], blocks: str | None) -> dict[str, Any]:
    """Of every further model to the first."""
    (_, baseline), *others = found.items()
    return {name: mean_iou_difference(scores, baseline, blocks) for name, scores in others}


def _pair(sides: Sequence[int] | None) -> tuple[int, int] | None:
    return (sides[0], sides[1]) if sides else None


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda evaluate",
        description="Score models of any runtime on labelled datasets, at the labels' resolution; "
        "of several, each is compared with the first. For several GPUs start tools/evaluate.py "
        "with torchrun: the scores are the same.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="run folder, checkpoint, or a file of `t2sda export`",
    )
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="NAME", help="labelled datasets"
    )
    add_branch_argument(parser)
    add_protocol_arguments(parser)
    parser.add_argument("--boundary", action="store_true", help="boundary IoU as well")
    parser.add_argument(
        "--calibration", action="store_true", help="expected calibration error as well"
    )
    parser.add_argument(
        "--predictions",
        metavar="DIR",
        help="write what is predicted to DIR/DATASET, as PNG files of label ids, which the "
        "benchmark server of Cityscapes takes",
    )
    parser.add_argument(
        "--blocks",
        metavar="PATTERN",
        help="of differences: regular expression, found in every image's name; images with the "
        "same text of its first group are drawn together, such as '([^/]+)/' for folders. "
        "Default: every image alone",
    )
    parser.add_argument(
        "--output",
        metavar="JSON",
        help=f"file that the scores are added to; default: {FILE_NAME} in the folder of a run, "
        f"none for a file",
    )
    add_model_arguments(parser)
    return parser


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """How a predictor sees an image; see `protocol_of`."""
    group = parser.add_argument_group("how images are seen")
    group.add_argument(
        "--image-size",
        nargs=2,
        type=positive_int,
        metavar=("HEIGHT", "WIDTH"),
        help="resize images to fit, ratio kept; default: as in the run's evaluations",
    )
    group.add_argument(
        "--window",
        nargs=2,
        type=positive_int,
        metavar=("HEIGHT", "WIDTH"),
        help="score by windows, logits averaged where they overlap; default: as in the run's "
        "evaluations, which take images whole unless EVALUATION.WINDOW is set",
    )
    group.add_argument(
        "--step",
        nargs=2,
        type=positive_int,
        metavar=("HEIGHT", "WIDTH"),
        help="from one window to the next; default: as in the run's evaluations, or two thirds of "
        "the window",
    )
    group.add_argument(
        "--flip", action="store_true", help="mean softmax of the image and its mirror image"
    )
    group.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[1.0],
        metavar="FACTOR",
        help="mean softmax over images of these scales; default: 1",
    )
