"""`t2sda data check`: find out what is wrong with a dataset before training on it."""

from __future__ import annotations

import argparse
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets
from t2sda.data.catalog import DATASETS, DatasetSpec, OpensDataset, open_dataset
from t2sda.data.check import DatasetReport, Finding, check_dataset, duplicates_across
from t2sda.data.class_statistics import class_frequencies
from t2sda.data.dataset_files import read_dataset_file
from t2sda.data.datasets import FileDataset, Sample, SegmentationDataset
from t2sda.engine.metrics import standard_console
from t2sda.engine.progress import ConsoleProgress
from t2sda.errors import MissingFileError
from t2sda.files import atomic_write, make_writable_dir
from t2sda.images.finding import counted
from t2sda.inference.dataset_images import contact_sheet, write_frequencies
from t2sda.inference.results import write_png

TRAINING_WOULD_FAIL = 1
"""Exit code."""
SHOWN_OF_A_KIND = 5
SHEET_IMAGES = 20
SPLITS = ("train", "val", "test")
EVALUATION_SPLITS = ("_val", "_test")
BASELINE_MIN_PIXELS = 3000
"""Default of RARE_CLASSES.MIN_PIXELS; made for images of 2 megapixels."""


def command(argv: Sequence[str]) -> int:
    """Check every dataset; returns 0, or TRAINING_WOULD_FAIL."""
    args = build_parser().parse_args(argv)
    load_datasets(args)
    console = standard_console()
    named = [pair for name in args.datasets for pair in _datasets_of(name)]
    output_dir = Path(args.output)
    make_writable_dir(output_dir, "--output")
    progress = ConsoleProgress(console)
    siblings = _siblings({dataset.name for dataset, _ in named})
    known = [*(dataset for dataset, _ in named), *siblings]
    reports = [check_dataset(dataset, spec, progress, known) for dataset, spec in named]
    across = duplicates_across(reports, siblings, progress)
    for report in reports:
        _show(console, report)
        _write_images(report, output_dir)
    findings = [*(found for report in reports for found in report.findings), *across]
    findings_path = output_dir / "findings.txt"
    atomic_write(findings_path, "".join(f"{_line(found)}\n" for found in findings))
    _show_findings(console, findings, findings_path)
    console.print(f"plots, contact sheets and all findings are in {output_dir}", soft_wrap=True)
    return TRAINING_WOULD_FAIL if any(found.fatal for found in findings) else 0


def _datasets_of(name: str) -> list[tuple[SegmentationDataset, OpensDataset]]:
    """A registered dataset, or those of a YAML file."""
    if Path(name).suffix in (".yaml", ".yml"):
        return [(spec.open(), spec) for spec in read_dataset_file(Path(name))]
    return [(open_dataset(name), DATASETS.get(name))]


def _siblings(asked: set[str]) -> list[SegmentationDataset]:
    """The other splits of the datasets, as far as they are files and found."""
    names = {
        f"{stem}_{split}"
        for stem, _, last in (name.rpartition("_") for name in asked)
        for split in SPLITS
        if last in SPLITS
    }
    found: list[SegmentationDataset] = []
    for name in sorted(names - asked):
        spec = DATASETS.get(name) if name in DATASETS else None
        if isinstance(spec, DatasetSpec):
            with contextlib.suppress(MissingFileError):  # what is not here shares nothing
                found.append(spec.open())
    return found


def _show(console: Console, report: DatasetReport) -> None:
    dataset = report.dataset
    sizes = ", ".join(f"{h}x{w} ({count})" for (h, w), count in report.sizes.most_common(5))
    more = f", and {len(report.sizes) - 5} more" if len(report.sizes) > 5 else ""
    console.rule(dataset.name)
    count = f"{len(dataset)} image{'s' if len(dataset) != 1 else ''}"
    console.print(f"{count}; height x width: {sizes}{more}", highlight=False)
    if isinstance(dataset, FileDataset) and dataset.passed_over:
        console.print(f"passed over: {counted(dataset.passed_over)}", highlight=False)
    pixels = report.pixels
    if not dataset.labelled:
        console.print("no labels: enough for a target", highlight=False)
    if not pixels.size:
        return
    ignored = pixels[:, -1].sum() / max(pixels.sum(), 1)
    console.print(f"{100 * ignored:.1f} % of all pixels are ignored", highlight=False)
    console.print(_table(pixels, dataset))
    if not dataset.name.endswith(EVALUATION_SPLITS):
        _advise_on_rare_classes(console, pixels, dataset)


def _table(pixels: np.ndarray, dataset: SegmentationDataset) -> Table:
    table = Table()
    for title in ("class", "% of labelled pixels", "images with it"):
        table.add_column(title, justify="left" if title == "class" else "right")
    images = (pixels[:, :-1] > 0).sum(axis=0)
    shares = class_frequencies(pixels)
    for name, share, count in zip(dataset.taxonomy.class_names, shares, images, strict=True):
        shown = f"{100 * share:.3f}" if share else "never"
        table.add_row(name, shown, str(count))
    return table


def _advise_on_rare_classes(
    console: Console, pixels: np.ndarray, dataset: SegmentationDataset
) -> None:
    """Say where the usual threshold of rare-class sampling does not fit these images."""
    occurs = pixels[:, :-1].any(axis=0)
    never_enough = occurs & ~(pixels[:, :-1] > BASELINE_MIN_PIXELS).any(axis=0)
    if never_enough.any():
        names = [dataset.taxonomy.class_names[c] for c in np.flatnonzero(never_enough)]
        console.print(
            f"rare-class sampling: no image has more than {BASELINE_MIN_PIXELS} pixels of "
            f"{', '.join(names)}; set RARE_CLASSES.MIN_SHARE, such as 0.0015, or MIN_PIXELS",
            highlight=False,
            soft_wrap=True,
        )


def _write_images(report: DatasetReport, output_dir: Path) -> None:
    dataset = report.dataset
    if report.pixels.size:
        write_frequencies(
            output_dir / f"{dataset.name}_classes.png",
            f"{dataset.name}: {len(dataset)} images",
            report.pixels,
            dataset.taxonomy,
        )
    samples = _usable_samples(report)
    if samples:
        sheet = contact_sheet(samples, dataset.taxonomy)
        write_png(output_dir / f"{dataset.name}_sheet.png", sheet)


def _usable_samples(report: DatasetReport) -> list[Sample]:
    """Up to SHEET_IMAGES of the images without a finding that prevents it, evenly spread."""
    usable = [
        index
        for index, item in enumerate(report.examinations)
        if not any(found.fatal for found in item.findings)
    ]
    places = np.linspace(0, len(usable) - 1, min(SHEET_IMAGES, len(usable))).round().astype(int)
    return [report.dataset.load(usable[place]) for place in places]


def _show_findings(console: Console, findings: Iterable[Finding], path: Path) -> None:
    by_kind: dict[tuple[bool, str], list[Finding]] = defaultdict(list)
    for found in findings:
        by_kind[not found.fatal, found.kind].append(found)
    console.rule("findings")
    if not by_kind:
        console.print("nothing is wrong")
    for (harmless, kind), members in sorted(by_kind.items()):
        title, style = ("note", "yellow") if harmless else ("ERROR", "bold red")
        console.print(f"{title}: {kind} ({len(members)})", style=style, highlight=False)
        for found in members[:SHOWN_OF_A_KIND]:
            console.print(f"  {found.text}", highlight=False, soft_wrap=True)
        if len(members) > SHOWN_OF_A_KIND:
            console.print(f"  … all {len(members)} in {path}", highlight=False, soft_wrap=True)


def _line(found: Finding) -> str:
    return f"{'ERROR' if found.fatal else 'note'}: {found.kind}: {found.text}"


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda data check",
        description="Look at every image and label: counts, sizes, files that do not belong "
        "together or cannot be read, unknown ids, class frequencies, duplicates between splits. "
        "Exit code 1 if training would go wrong.",
    )
    parser.add_argument(
        "datasets",
        nargs="+",
        metavar="NAME|FILE",
        help="registered datasets, or YAML files as for DATASETS.FILES",
    )
    parser.add_argument(
        "--output",
        default="output/data_check",
        metavar="DIR",
        help="folder for plots, contact sheets and the list of findings (default: %(default)s)",
    )
    add_dataset_arguments(parser)
    return parser
