"""`t2sda analyze`: what the features and pseudo-labels of trained networks say."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from t2sda.analysis.embedding import check_can_embed
from t2sda.analysis.features import KINDS
from t2sda.analysis.results import write_results
from t2sda.analysis.study import EMBEDDING, PARTS, RunAnalysis, RunStudy, StudySettings
from t2sda.cli.common import (
    ArgumentParser,
    add_dataset_arguments,
    distinct_names,
    load_datasets,
    positive_int,
)
from t2sda.cli.loading import add_device_argument
from t2sda.data.catalog import open_dataset
from t2sda.engine.checkpoint import resolve_checkpoint
from t2sda.engine.device import choose_device
from t2sda.engine.metrics import advancing, progress_bar, standard_console
from t2sda.errors import UserError
from t2sda.files import is_folder, only_writer
from t2sda.runtime.checkpoints import open_checkpoint
from t2sda.training.folder import register_datasets_of_runs

FOLDER = "analysis"
logger = logging.getLogger(__name__)

COLUMNS = {
    "IoU %": ("iou", 100.0),
    "similarity": ("similarity", 1.0),
    "CCD": ("center_distance", 1.0),
    "PDD": ("pixel_distance", 1.0),
    "pseudo-labels right %": ("pseudo_label_accuracy", 100.0),
    "covered %": ("pseudo_label_coverage", 100.0),
}
"""Of the table: title, figure, factor."""


def command(argv: Sequence[str]) -> int:
    """Analyze runs, write figures and tables; returns 0."""
    args = build_parser().parse_args(argv)
    parts = _possible_parts() if args.parts is None else args.parts
    settings = StudySettings(parts, args.features, args.max_images, args.pixels, args.seed)
    if EMBEDDING in settings.parts:
        check_can_embed()
    load_datasets(args)
    register_datasets_of_runs(args.runs, args.data)
    output = output_folder(args.runs, args.output)
    device = choose_device(args.device)
    studies = _studies(args, settings, device)
    console = standard_console()
    with only_writer(output, "--output"):
        with progress_bar(console) as bar:
            runs = [study.run(functools.partial(advancing, bar)) for study in studies]
        files = write_results(output, runs, args.data, settings)
    for run in runs:
        show(console, run)
    console.print(f"{len(files)} files are in {output}", highlight=False, soft_wrap=True)
    return 0


def output_folder(runs: Sequence[Path], output: Path | None) -> Path:
    """Where results go: a folder in the run, or the one that is named.

    Raises:
        UserError: if several runs leave it open.
    """
    if output is not None:
        return output
    if len(runs) > 1:
        raise UserError("several runs have one analysis: name a folder for it with --output DIR")
    return (runs[0] if is_folder(runs[0]) else runs[0].parent) / FOLDER


def _studies(
    args: argparse.Namespace, settings: StudySettings, device: torch.device
) -> list[RunStudy]:
    """One for each run; everything that does not fit together is found before the first pass."""
    paths = [resolve_checkpoint(run) for run in args.runs]
    source, target = (open_dataset(name) for name in args.data)
    studies = [
        RunStudy(name, open_checkpoint(path), (source, target), settings, device)
        for name, path in zip(distinct_names(args.runs), paths, strict=True)
    ]
    channels = {study.result.name: study.read.channels for study in studies}
    if EMBEDDING in settings.parts and len(set(channels.values())) > 1:
        found = ", ".join(f"{name} has {count}" for name, count in channels.items())
        raise UserError(
            f"one embedding needs features of as many channels, but {found}; analyze the runs one "
            f"by one, or leave {EMBEDDING} out of --parts"
        )
    return studies


def show(console: Console, run: RunAnalysis) -> None:
    """Print the table of a run."""
    columns = {
        title: (run.per_class[key] * factor).tolist()
        for title, (key, factor) in COLUMNS.items()
        if key in run.per_class
    }
    if not columns:
        return
    table = Table(title=f"{run.name}, iteration {run.iteration}", title_justify="left")
    table.add_column("class")
    for title in columns:
        table.add_column(title, justify="right")
    for index, name in enumerate(run.classes.names):
        table.add_row(name, *(_shown(values[index]) for values in columns.values()))
    console.print(table)
    left_out = int(run.per_class.get("cells_without_ratio", torch.zeros(1)).sum())
    if left_out:
        console.print(f"{left_out} cells have no PDD: their denominator in Eq. (15) is zero")
    if run.quality is not None:
        console.print(
            f"quality q of the pseudo-labels at δ_p {run.threshold:g}: {run.quality:.3f}",
            highlight=False,
        )


def _shown(value: float) -> str:
    return "–" if value != value else f"{value:.3g}"


def _possible_parts() -> tuple[str, ...]:
    """All parts; without the embedding, and a warning, where its library is missing."""
    try:
        check_can_embed()
    except UserError as error:
        logger.warning("%s left out: %s", EMBEDDING, error)
        return tuple(part for part in PARTS if part != EMBEDDING)
    return PARTS


def _parts(text: str) -> tuple[str, ...]:
    chosen = [part.strip() for part in text.split(",")]
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part '{unknown[0]}'; known: {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in chosen)


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda analyze",
        description="Distances and similarity of class features, t-SNE, pseudo-labels and class "
        "weights of trained networks, as figures (PNG, SVG) and tables (CSV, JSON). What each "
        "means is in docs/analysis.md.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folder or checkpoint"
    )
    parser.add_argument(
        "--data",
        nargs=2,
        required=True,
        metavar=("SOURCE", "TARGET"),
        help="labelled datasets of the two domains, as `t2sda data list` names them",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the results; default: RUN/analysis, of a single run",
    )
    parser.add_argument(
        "--parts",
        type=_parts,
        metavar="PARTS",
        help=f"comma-separated, of {', '.join(PARTS)} (default: all that can be made here)",
    )
    parser.add_argument(
        "--features",
        choices=KINDS,
        default=KINDS[0],
        help="those that the projector reads, or the projector's own (default: %(default)s)",
    )
    parser.add_argument(
        "--max-images",
        type=positive_int,
        default=0,
        metavar="N",
        help="of each domain, evenly spaced; default: all",
    )
    parser.add_argument(
        "--pixels",
        type=positive_int,
        default=256,
        metavar="N",
        help="cells of every class and domain in the embedding (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    add_device_argument(parser)
    add_dataset_arguments(parser)
    return parser
