"""How long it takes to look at a dataset once: `t2sda data check`, and rare-class statistics.

    python -m benchmarks.data_check

On generated files of GTA5's size and format (see `street_files.py`). The work for an image, in one
process: the check reads, decodes and hashes image and label, the statistics need the label alone.
The best of three rounds. Both run on all cores, so divide by their number.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.street_files import gta5_png
from t2sda.data.check import examine_sample
from t2sda.data.parallel import mapped

GTA5_IMAGES = 24_966
ROUNDS = 3


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24, help="how many to generate")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = gta5_png(Path(folder), args.images).open()
        for what, function in (
            ("data check", partial(examine_sample, dataset)),
            ("rare-class statistics", dataset.class_pixels),
        ):
            seconds = min(_seconds(function, args.images) for _ in range(ROUNDS)) / args.images
            print(
                f"{what:<22} {1000 * seconds:6.1f} ms an image and core; all {GTA5_IMAGES} images "
                f"of GTA5: {GTA5_IMAGES * seconds / 60:.1f} minutes on one core"
            )


def _seconds(function: Callable[[int], object], count: int) -> float:
    begin = time.perf_counter()
    for _ in mapped(function, count, "", num_processes=1):
        pass
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
