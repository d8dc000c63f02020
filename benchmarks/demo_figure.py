"""README's photographs: as they are, as the source alone sees them, as T2S-DA sees them.

    python -m benchmarks.demo_figure SOURCE_ONLY_RUN T2SDA_RUN --output docs/adapted.jpg

The photographs are those of docs/demo, which may be shown; nothing is trained or scored on them.
`make demo-model` trains both runs first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from t2sda.cli.common import ArgumentParser, run_command
from t2sda.errors import UserError
from t2sda.files import check_writable_file
from t2sda.images.reader import read_image
from t2sda.inference.visualisation import comparison
from t2sda.runtime.loading import load_model

PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "docs/demo").glob("*.jpg"))
SIZE = (480, 360)
"""(width, height) of the training images, which the middle of each photograph is shrunk to."""


def command(argv: Sequence[str]) -> int:
    """Write the figure; returns 0."""
    args = _parser().parse_args(argv)
    check_writable_file(Path(args.output), "--output")
    models = {"source only": load_model(args.source_only), "T2S-DA": load_model(args.t2sda)}
    taxonomy, other = (model.taxonomy for model in models.values())
    if taxonomy.class_names != other.class_names:
        raise UserError(f"{args.t2sda}: has other classes than {args.source_only}")
    rows = []
    for path in PHOTOGRAPHS:
        image = np.asarray(ImageOps.fit(Image.fromarray(read_image(path)), SIZE))
        rows.append((image, {name: model.predict(image) for name, model in models.items()}))
    Image.fromarray(comparison(rows, taxonomy)).save(args.output, format="JPEG", quality=88)
    print(args.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="benchmarks.demo_figure", description=__doc__)
    parser.add_argument("source_only", metavar="SOURCE_ONLY_RUN")
    parser.add_argument("t2sda", metavar="T2SDA_RUN")
    parser.add_argument("--output", default="docs/adapted.jpg", metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(command, sys.argv[1:]))
