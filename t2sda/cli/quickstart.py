"""`t2sda quickstart`: the whole way once, from drawn streets to a page for the browser."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2sda.cli import export, export_web, infer, train
from t2sda.cli.common import ArgumentParser
from t2sda.config import load_config
from t2sda.data.catalog import open_dataset
from t2sda.engine.checkpoint import resolve_checkpoint
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.export.ort_web import runtime_files
from t2sda.inference.results import write_png
from t2sda.inference.sources import find_sources
from t2sda.inference.visualisation import comparison
from t2sda.runtime.loading import load_model

RUNS = {"source only": "quickstart_source_only.yaml", "T2S-DA": "quickstart.yaml"}
INSTALLED_DOCS, TREE_DOCS = (Path(__file__).parents[n] / "docs" for n in (1, 2))
DEMO_IMAGES = (INSTALLED_DOCS if INSTALLED_DOCS.is_dir() else TREE_DOCS) / "demo"
NUM_COMPARED = 3
PAGE_SIZE = ("256", "512")
"""Height and width that the networks see in the browser: those of the drawn streets."""


def command(argv: Sequence[str]) -> int:
    """The whole way; returns the first exit code that is not 0."""
    args = build_parser().parse_args(argv)
    console = standard_console()
    began = time.perf_counter()
    output_dir = Path(args.output_dir)
    find_sources(args.images, output_dir)  # now, not after minutes of training
    folders = {name: output_dir / Path(config).stem for name, config in RUNS.items()}
    for number, (name, config) in enumerate(RUNS.items(), start=1):
        console.rule(f"{number}/5  {name}")
        code = train.command(
            [
                *("--config-file", config, "--output-dir", str(folders[name]), "--resume"),
                *args.overrides,
            ]
        )
        if code:
            return code
    onnx_path = output_dir / "student.onnx"
    console.rule("3/5  export")
    export.command(["onnx", str(folders["T2S-DA"]), "--output", str(onnx_path), "--dynamic"])
    console.rule("4/5  photographs")
    images_dir = output_dir / "photographs"
    code = infer.command(
        [
            *("--model", str(onnx_path), "--input", args.images, "--output", str(images_dir)),
            *("--kind", "panel,overlay,trainid"),
        ]
    )
    console.rule("5/5  a page for the browser")
    page = _page(folders, output_dir / "site")
    comparison_path = output_dir / "comparison.png"
    dataset = _target_dataset(args.overrides)
    write_png(comparison_path, _comparison(folders, dataset))
    console.rule("what came of it")
    console.print(f"IoU % on {dataset}", highlight=False)
    console.print(_table(folders, dataset))
    _say_where_to_look(console, onnx_path, images_dir, comparison_path, page)
    console.print(f"{(time.perf_counter() - began) / 60:.1f} minutes", highlight=False)
    return code


def build_parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = ArgumentParser(
        prog="t2sda quickstart",
        description="Train source-only and T2S-DA on drawn streets, score both on the second "
        "domain, export the student to ONNX, segment photographs, write a page that runs both in a "
        "browser. Goes on where it was stopped.",
    )
    parser.add_argument("--output-dir", default="output/quickstart", metavar="DIR")
    parser.add_argument(
        "--images",
        default=str(DEMO_IMAGES),
        metavar="FILE|DIR|GLOB",
        help="photographs to segment; default: the two that come with t2sda",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="for both trainings")
    return parser


def _target_dataset(overrides: Sequence[str]) -> str:
    """The dataset of the second domain that both runs are scored on."""
    cfg = load_config(RUNS["T2S-DA"], overrides)
    return cfg.EVALUATION.DATASETS[-1]


def _scores(run: Path, dataset: str) -> dict[str, float]:
    """The newest scores on `dataset` in a run's metrics, by class name and "mIoU"."""
    prefix = f"evaluation/{dataset}/"
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    for line in reversed(lines):
        found = {k.removeprefix(prefix): v for k, v in json.loads(line).items() if prefix in k}
        if found:
            return {
                name.removeprefix("IoU/"): math.nan if value is None else value
                for name, value in found.items()
            }
    raise UserError(f"{run}: no scores on {dataset}; delete the folder and start again")


def _table(folders: dict[str, Path], dataset: str) -> Table:
    """IoU before and after adaptation."""
    before, after = (_scores(folder, dataset) for folder in folders.values())
    table = Table()
    table.add_column("class")
    for name in (*folders, "change"):
        table.add_column(name, justify="right")
    for name in (*open_dataset(dataset).taxonomy.class_names, "mIoU"):
        if name == "mIoU":
            table.add_section()
        table.add_row(name, *_row(before[name], after[name]))
    return table


def _row(before: float, after: float) -> tuple[str, str, Text]:
    change = 100 * (after - before)
    color = "green" if change > 0.05 else "red" if change < -0.05 else "default"
    return f"{100 * before:.1f}", f"{100 * after:.1f}", Text(f"{change:+.1f}", color)


def _comparison(folders: dict[str, Path], dataset_name: str) -> np.ndarray:
    """Scenes of the second domain: image, truth, source only, T2S-DA, with a legend."""
    models = {name: load_model(resolve_checkpoint(folder)) for name, folder in folders.items()}
    dataset = open_dataset(dataset_name)
    rows = []
    for index in range(min(NUM_COMPARED, len(dataset))):
        sample = dataset.load(index)
        assert sample.label is not None
        predictions = {name: model.predict(sample.image) for name, model in models.items()}
        rows.append((sample.image, {"truth": sample.label, **predictions}))
    return comparison(rows, dataset.taxonomy)


def _page(folders: dict[str, Path], site: Path) -> str:
    """Write the site of both networks; returns where to open it, or how to get it later."""
    before, after = (str(folder) for folder in folders.values())
    arguments = [after, "--before", before, "--size", *PAGE_SIZE, "--output", str(site)]
    for photograph in sorted(DEMO_IMAGES.glob("*.jpg")):
        arguments += ["--example", str(photograph)]
    try:
        runtime_files()  # what may be missing, before the exports
        export_web.command([*arguments, "--precision", "fp16"])
    except UserError as error:
        return f"not written ({error}); then: t2sda export web {shlex.join(arguments)}"
    serve = f"python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(site))}"
    return f"{site}; {serve}, then open http://127.0.0.1:8000"


def _say_where_to_look(
    console: Console, onnx_path: Path, images_dir: Path, comparison_path: Path, page: str
) -> None:
    for what, place in (
        ("scenes before and after", comparison_path),
        ("photographs with overlays", images_dir),
        ("the student as ONNX, verified", onnx_path),
        ("both in the browser, a slider", page),
    ):
        console.print(f"{what:<30} {place}", highlight=False, soft_wrap=True, markup=False)
