"""`t2sda data list`: the datasets that are registered, and where they were found."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table

from t2sda.cli.common import ArgumentParser, add_dataset_arguments, load_datasets
from t2sda.data.catalog import DATASETS, DATASETS_VARIABLE, OpensDataset, dataset_folders
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError


def command(argv: Sequence[str]) -> int:
    """Print a table; a dataset that is not there is no error."""
    args = build_parser().parse_args(argv)
    load_datasets(args)
    console = standard_console()
    console.print(_places(), highlight=False, soft_wrap=True)
    found, lacking = Table(title="found", title_justify="left"), defaultdict(list)
    for title in ("dataset", "images", "labels", "classes", "where"):
        right = title in ("images", "classes")
        found.add_column(title, justify="right" if right else "left", overflow="fold")
    for spec in (DATASETS.get(name) for name in DATASETS.names()):
        row = _row(spec)
        if row is None:
            lacking[spec.location].append(spec.name)
        else:
            found.add_row(*row)
    console.print(found)
    if lacking:
        missing = Table(title="not found", title_justify="left")
        for title in ("looked for", "datasets"):
            missing.add_column(title, overflow="fold")
        for location, names in sorted(lacking.items()):
            missing.add_row(location, ", ".join(names))
        console.print(missing)
    return 0


def build_parser() -> ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda data list",
        description="The datasets that are registered, and where they were found.",
    )
    add_dataset_arguments(parser)
    return parser


def _places() -> str:
    listed = os.environ.get(DATASETS_VARIABLE)
    folders = ", ".join(str(folder.resolve()) for folder in dataset_folders())
    return f"{DATASETS_VARIABLE}: {listed or 'not set'}; looking below {folders}"


def _row(spec: OpensDataset) -> tuple[str, ...] | None:
    """What was found of a dataset; None if it is not there."""
    try:
        dataset = spec.open()
    except UserError:
        return None
    labels = "yes" if dataset.labelled else "no"
    classes = str(len(dataset.class_groups) or dataset.taxonomy.num_classes)
    return spec.name, str(len(dataset)), labels, classes, spec.location
