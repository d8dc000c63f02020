"""Peak memory of `t2sda infer --window` on a panorama, beside that on an image of one window.

python benchmarks/infer_memory.py --model output/inference/ov_fp32.xml
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.data.transforms import resize_image
from t2sda.streets import draw_street

MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""
"""A process of its own: the peak of one's children is that of all there ever were."""


def main() -> int:
    """Draw, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--window", nargs=2, type=int, default=[512, 1024])
    parser.add_argument("--width", type=int, default=20_000, help="of the panorama")
    add_ratios_argument(parser)
    args = parser.parse_args()
    height, width = args.window
    street = resize_image(draw_street("hazy", 9, 0, (256, 512))[0], (height, width))
    panorama = np.tile(street, (2, -(-args.width // width), 1))[:, : args.width]
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for title, image in (("one window", street), ("panorama", panorama)):
            path = Path(name) / f"{title.replace(' ', '_')}.png"
            Image.fromarray(image).save(path)
            peaks.append(peak(args.model, path, (height, width)))
            print(
                f"{title}: {image.shape[1]}x{image.shape[0]}, {image.nbytes / 2**20:.0f} MiB "
                f"decoded, peak {peaks[-1]:.0f} MiB"
            )
    detail = f"{peaks[1]:.0f} MiB, one window {peaks[0]:.0f} MiB"
    what = f"infer: memory of a panorama of {args.width}x{height} beside one window"
    save_ratios(args.ratios, [Ratio(what, peaks[1] / peaks[0], detail)])
    return 0


def peak(model: str, image: Path, window: tuple[int, int]) -> float:
    """MiB of the command."""
    command = [
        *(sys.executable, "-m", "t2sda", "infer", "--model", model, "--device", "cpu"),
        *("--input", str(image), "--output", str(image.with_suffix(""))),
        *("--window", *map(str, window)),
    ]
    measured = [sys.executable, "-c", MEASURED, *command]
    return float(subprocess.run(measured, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
