"""`t2sda infer`: segment pictures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from t2sda.cli.common import load_components
from t2sda.data.decode import UnreadableFileError
from t2sda.engine.metrics import standard_console
from t2sda.export.runtime import DEVICES, LoadedModel, load_model
from t2sda.files import make_writable_dir
from t2sda.inference.pictures import read_picture
from t2sda.inference.results import KINDS, write_png, write_results
from t2sda.inference.sources import Picture, find_pictures
from t2sda.inference.visualisation import class_counts, legend

SOME_UNREADABLE = 3
"""Exit code: everything else is done."""


def command(argv: Sequence[str]) -> int:
    """Segment every picture; returns 0, or SOME_UNREADABLE if files were left out."""
    args = _parser().parse_args(argv)
    output_dir = Path(args.output)
    pictures = find_pictures(args.input, output_dir)
    load_components(args.plugin)
    model = load_model(args.model, device=args.device)
    make_writable_dir(output_dir, "--output")
    return Inference(model, output_dir, args.kind, standard_console()).run(pictures)


class Inference:
    """Pictures in, result files out.

    Args:
        model: of any runtime.
        output_dir: exists and can be written to.
        kinds: of results, from KINDS.
        console: for progress.
    """

    def __init__(
        self, model: LoadedModel, output_dir: Path, kinds: Sequence[str], console: Console
    ) -> None:
        self.model = model
        self.output_dir = output_dir
        self.kinds = kinds
        self.console = console
        self.counts = np.zeros(model.taxonomy.num_classes, dtype=np.int64)
        self.unreadable: list[UnreadableFileError] = []

    def run(self, pictures: Sequence[Picture]) -> int:
        """Segment them all, write the legend of what was seen; returns the exit code."""
        begin = time.perf_counter()
        for picture in _with_progress(pictures, self.console):
            try:
                self._segment(picture)
            except UnreadableFileError as error:
                self.unreadable.append(error)
        done = len(pictures) - len(self.unreadable)
        if done:
            taxonomy = self.model.taxonomy
            write_png(self.output_dir / "legend.png", legend(self.counts, taxonomy, width=480))
        self._conclude(done, time.perf_counter() - begin)
        return SOME_UNREADABLE if self.unreadable else 0

    def _segment(self, picture: Picture) -> None:
        image = read_picture(picture.path)
        labels = self.model.predict(image)
        self.counts += class_counts(labels, self.model.taxonomy)
        target = self.output_dir / picture.name
        write_results(target, image, labels, self.model.taxonomy, self.kinds)

    def _conclude(self, done: int, seconds: float) -> None:
        self.console.print(
            f"{done} pictures in {seconds:.1f} s ({done / seconds:.1f} a second); "
            f"results in {self.output_dir}",
            highlight=False,
            soft_wrap=True,
        )
        if self.unreadable:
            print(f"{len(self.unreadable)} files were left out:", file=sys.stderr)
            for error in self.unreadable:
                print(f"  {error}", file=sys.stderr)


def _with_progress(pictures: Sequence[Picture], console: Console) -> Iterator[Picture]:
    """The pictures, with a bar on a terminal and a line for each elsewhere."""
    return iter(_bar(pictures, console) if console.is_terminal else _lines(pictures, console))


def _bar(pictures: Sequence[Picture], console: Console) -> Iterable[Picture]:
    columns = (
        TextColumn("segmenting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(pictures), name="")
        for picture in pictures:
            progress.update(task, name=picture.path.name)
            yield picture
            progress.advance(task)


def _lines(pictures: Sequence[Picture], console: Console) -> Iterable[Picture]:
    for index, picture in enumerate(pictures, start=1):
        begin = time.perf_counter()
        yield picture
        seconds = time.perf_counter() - begin
        console.print(
            f"{index}/{len(pictures)} {picture.path} {seconds:.2f} s",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _kinds(text: str) -> list[str]:
    kinds = [kind.strip() for kind in text.split(",")]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no kind '{unknown[0]}'; known: {', '.join(KINDS)}")
    return kinds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="t2sda infer",
        description="Segment pictures. For each it writes NAME_KIND.png, and for all together "
        "legend.png. Files that cannot be read are listed at the end (exit code 3).",
    )
    parser.add_argument(
        "--model", required=True, help="run folder, checkpoint, or ONNX file of `t2sda export`"
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE|DIR|GLOB", help="a picture, a folder, a pattern"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--kind",
        type=_kinds,
        default=["overlay", "color", "trainid"],
        metavar="KINDS",
        help=f"comma-separated, of {', '.join(KINDS)} (default: overlay,color,trainid)",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="auto takes the GPU where there is one",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="what the run was started with; repeatable",
    )
    return parser
