"""How busy `t2sda infer` keeps the cores on a folder of JPEGs.

Draws streets, writes them as JPEGs, segments them in a process of its own, and compares the wall
time with the CPU time that process used: with every core busy all the time, wall = CPU / cores.
Start-up (imports, loading the model) is measured by a run on one image and taken off both.

    python benchmarks/infer_cores.py --model output/inference/ov_bf16.xml
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from PIL import Image

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.data.transforms import resize_image
from t2sda.export.latency import busy_seconds
from t2sda.streets import draw_street

BUSY = 95.0
"""Per cent of the cores that a folder of images is to keep busy."""
NUM_DRAWN = 8
"""Different images; the others are copies."""


def main() -> int:
    """Draw, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", nargs=2, type=int, default=[512, 1024])
    add_ratios_argument(parser)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "one", 1, (args.size[0], args.size[1]))
        draw(folder / "all", args.images, (args.size[0], args.size[1]))
        start_wall, start_cpu = timed(args.model, folder / "one", folder / "out_one")
        busy = busy_seconds()
        wall, cpu = timed(args.model, folder / "all", folder / "out_all")
        others = max(busy_seconds() - busy - cpu, 0.0) / wall
    print(f"start-up and one image: {start_wall:.1f} s wall, {start_cpu:.1f} s CPU")
    print(f"{args.images} images: {wall:.1f} s wall, {cpu:.1f} s CPU on {cores} cores")
    idle = max(1 - (cpu / wall + others) / cores, 0.0)
    print(f"other processes kept {others:.2f} cores busy meanwhile, {100 * idle:.1f} % were idle")
    wall, cpu = wall - start_wall, cpu - start_cpu
    print(
        f"without start-up: {args.images / wall:.1f} images a second; cores busy "
        f"{100 * cpu / (cores * wall):.1f} %, wall / (CPU / cores) = {wall * cores / cpu:.3f}"
    )
    busy_share = 100 * cpu / ((cores - others) * wall)
    what = "infer on a folder: share of the cores that others left"
    detail = f"{cpu:.1f} s of the CPU in {wall:.1f} s, others {others:.2f} cores"
    save_ratios(args.ratios, [Ratio(what, busy_share, detail, at_least=BUSY, unit="%")])
    return 0


def draw(folder: Path, count: int, size: tuple[int, int]) -> None:
    """`count` JPEGs of drawn streets."""
    folder.mkdir()
    cv2.setNumThreads(1)
    for index in range(count):
        path = folder / f"{index:04d}.jpg"
        if index < NUM_DRAWN:
            street = resize_image(draw_street("hazy", 9, index, (256, 512))[0], size)
            Image.fromarray(street).save(path, quality=95)
        else:
            shutil.copy(folder / f"{index % NUM_DRAWN:04d}.jpg", path)


def timed(model: str, source: Path, output: Path) -> tuple[float, float]:
    """Wall and CPU seconds of the command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "t2sda", "infer", "--model", model, "--device", "cpu"),
            *("--input", str(source), "--output", str(output)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used


if __name__ == "__main__":
    sys.exit(main())
