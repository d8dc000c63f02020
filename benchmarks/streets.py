"""How many street scenes one core draws per second, for both domains.

python benchmarks/streets.py --num-images 200
"""

from __future__ import annotations

import argparse
import time

import cv2

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from t2sda.streets import DOMAINS, draw_street

LEAST = 60.0
"""Images a second of 256 x 512, on one core."""


def images_per_second(domain: str, num_images: int, size: tuple[int, int]) -> float:
    """Mean over `num_images` scenes, on one thread, with the textures drawn beforehand."""
    draw_street(domain, 0, 0, size)
    start = time.perf_counter()
    for index in range(num_images):
        draw_street(domain, 0, index, size)
    return num_images / (time.perf_counter() - start)


def main() -> None:
    """Print one line a domain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=200, help="scenes drawn per domain")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(256, 512), metavar=("HEIGHT", "WIDTH")
    )
    add_ratios_argument(parser)
    arguments = parser.parse_args()
    height, width = arguments.size
    cv2.setNumThreads(1)
    ratios = []
    for domain in DOMAINS:
        speed = images_per_second(domain, arguments.num_images, (height, width))
        print(f"{domain:6s} {height}x{width}  {speed:6.1f} images/s per core")
        what = f"drawn streets, {domain}, {height}x{width}"
        ratios.append(Ratio(what, speed, at_least=LEAST, unit="images a second"))
    save_ratios(arguments.ratios, ratios)


if __name__ == "__main__":
    main()
