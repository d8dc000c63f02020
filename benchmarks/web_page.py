"""Milliseconds a frame of the page of `t2sda export web`, in headless Chromium, beside the file's.

    python -m benchmarks.web_page FILE.onnx [--frames 30]

The page segments what Chromium's test camera shows, in WebAssembly and one thread; ONNX Runtime
segments a photograph of the demo, in one thread too. Both times hold fitting the image into the
network's size. The size is that of the whole site.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from selenium.webdriver.common.by import By

from t2sda import load_model
from t2sda.cli.common import ArgumentParser, run_command
from t2sda.errors import UserError
from t2sda.export.web import write_site
from t2sda.images import read_image
from tests.export.browser import CHROMIUM, DESKTOP, DRIVER, chromium, resize, served

PHOTO = Path(__file__).parents[1] / "docs/demo/lund_street_01.jpg"
WARM_UP = 5
SECONDS = 120


def command(argv: Sequence[str]) -> int:
    """Measure, print; returns 0."""
    args = _parser().parse_args(argv)
    if not (CHROMIUM and DRIVER):
        raise UserError("needs Chromium and its driver: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        size = write_site([args.file], site)
        page = statistics.median(page_times(site, Path(folder) / "profile", args.frames))
    own = statistics.median(own_times(args.file, args.frames))
    print(f"site of {size / 1e6:.1f} MB; page {page:.0f} ms a frame, ONNX Runtime {own:.0f} ms")
    print(f"in one thread each: {page / own:.1f} times")
    return 0


def page_times(site: Path, profile: Path, frames: int) -> list[float]:
    """Milliseconds of every frame after the first few, as the page says them."""
    with served(site) as (url, _), chromium(profile) as driver:
        resize(driver, DESKTOP)
        driver.get(url)
        driver.find_element(By.ID, "camera").click()
        facts, found = driver.find_element(By.ID, "facts"), list[str]()
        end = time.monotonic() + SECONDS
        while len(found) < WARM_UP + frames:
            if time.monotonic() > end:
                said = driver.find_element(By.ID, "status").text
                raise UserError(f"{len(found)} frames after {SECONDS} s; the page says: {said}")
            shown = facts.get_attribute("data-frame")
            if shown and shown not in found[-1:]:
                found.append(shown)
    return [float(shown) for shown in found[WARM_UP:]]


def own_times(file: Path, frames: int) -> list[float]:
    """Milliseconds of `predict` in one thread."""
    model, image = load_model(file, device="cpu", threads=1), read_image(PHOTO)
    found = []
    for _ in range(WARM_UP + frames):
        began = time.perf_counter()
        model.predict(image)
        found.append(1e3 * (time.perf_counter() - began))
    return found[WARM_UP:]


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="benchmarks.web_page", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.onnx", help="of one size, of labels")
    parser.add_argument("--frames", type=int, default=30)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(command, sys.argv[1:]))
