"""Milliseconds that decoders of images and labels take, and which damaged files they accept.

Those that are not installed are left out (`pip install pyspng` adds one). One thread, rounds
interleaved, files in memory. The last table is about packed images: what decoding costs, and the
disk, by how they are compressed.

    python -m benchmarks.decoders
"""

from __future__ import annotations

import argparse
import importlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.ratios import Ratio, add_ratios_argument, save_ratios
from benchmarks.street_files import cityscapes_png, gta5_jpeg, gta5_png
from t2sda.images import faster, read_image

Decode = Callable[[bytes], Any]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    add_ratios_argument(parser)
    args = parser.parse_args()
    ratios = []
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, content, decoders in _cases(Path(folder)):
            print(f"\n{name}, {len(content) / 1e6:.2f} MB")
            taken = _measured(decoders, content, args.rounds)
            if "label" not in name:  # the reader of images is none of labels
                ratios.append(_ratio(name, taken))
            for decoder, milliseconds in taken.items():
                accepted = ", ".join(_accepted_damage(decoders[decoder], content)) or "nothing"
                print(f"  {decoder:<24}{milliseconds:8.2f} ms   accepts {accepted}")
        _packed_png(Path(folder) / "gta5/images/00000.png", args.rounds)
    save_ratios(args.ratios, ratios)
    return 0


def _ratio(name: str, taken: dict[str, float]) -> Ratio:
    """The reader beside OpenCV; both with the fast decoders."""
    ours = next(own for own in taken if own.startswith("reader with") and "Open" not in own)
    detail = f"{taken[ours]:.1f} ms, OpenCV {taken['OpenCV']:.1f} ms"
    return Ratio(f"{name} beside OpenCV: times as fast", taken["OpenCV"] / taken[ours], detail)


def _cases(folder: Path) -> list[tuple[str, bytes, dict[str, Decode]]]:
    gta5_png(folder / "gta5", 1)
    gta5_jpeg(folder / "jpeg", 1)
    cityscapes_png(folder / "city", 1)
    png = _installed(_png_decoders(cv2.IMREAD_COLOR_RGB))
    ids = _installed(_png_decoders(cv2.IMREAD_UNCHANGED))
    return [
        ("GTA5 PNG 1914x1052", (folder / "gta5/images/00000.png").read_bytes(), png),
        ("Cityscapes PNG 2048x1024", (folder / "city/images/00000.png").read_bytes(), png),
        ("JPEG 1914x1052", (folder / "jpeg/images/00000.jpg").read_bytes(), _jpeg_decoders()),
        ("palette label 1914x1052", (folder / "gta5/labels/00000.png").read_bytes(), ids),
        ("grey label 2048x1024", (folder / "city/labels/00000.png").read_bytes(), ids),
    ]


def _png_decoders(flags: int) -> dict[str, Decode | None]:
    return {
        "OpenCV": lambda content: _found(cv2.imdecode(np.frombuffer(content, np.uint8), flags)),
        "Pillow": lambda content: np.asarray(Image.open(io.BytesIO(content))),
        "reader with imagecodecs": lambda content: read_image(content),
        "reader with OpenCV": _plain_reader,
        "imagecodecs, libpng": imagecodecs.png_decode,
        "imagecodecs, libspng": imagecodecs.spng_decode,
        "pyspng": _optional("pyspng", "load"),
    }


def _jpeg_decoders() -> dict[str, Decode]:
    def opencv(flags: int) -> Decode:
        return lambda content: _found(cv2.imdecode(np.frombuffer(content, np.uint8), flags))

    def reduced(divisor: int) -> Decode:
        return lambda content: simplejpeg.decode_jpeg(
            content, "RGB", min_height=1052 // divisor, min_width=1914 // divisor
        )

    return {
        "OpenCV": opencv(cv2.IMREAD_COLOR_RGB),
        "OpenCV at 1/2": opencv(cv2.IMREAD_REDUCED_COLOR_2),
        "Pillow": lambda content: np.asarray(Image.open(io.BytesIO(content))),
        "reader with simplejpeg": lambda content: read_image(content),
        "reader with Pillow": _plain_reader,
        "imagecodecs": imagecodecs.jpeg8_decode,
        "simplejpeg": reduced(1),
        "simplejpeg at 1/2": reduced(2),
    }


def _packed_png(path: Path, rounds: int) -> None:
    """What reading a packed image of 1280x704 costs, by how its PNG is compressed."""
    with Image.open(path) as opened:
        image = cv2.resize(np.asarray(opened), (1280, 704), interpolation=cv2.INTER_LINEAR)
    print("\npacked image of 1280x704 as PNG, decoded by imagecodecs and by OpenCV")
    for name, level, filter_ in (
        ("stored, as data pack does", 0, cv2.IMWRITE_PNG_FILTER_NONE),
        ("level 1", 1, cv2.IMWRITE_PNG_FILTER_SUB),
        ("level 6", 6, cv2.IMWRITE_PNG_FILTER_SUB),
    ):
        options = [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_FILTER, filter_]
        content = cv2.imencode(".png", image, options)[1].tobytes()
        decoders: dict[str, Decode] = {
            "imagecodecs": imagecodecs.png_decode,
            "OpenCV": lambda content: cv2.imdecode(np.frombuffer(content, np.uint8), 1),
        }
        taken = _measured(decoders, content, rounds)
        shown = "".join(f"{milliseconds:8.2f} ms" for milliseconds in taken.values())
        print(f"  {name:<28}{shown}   {len(content) / image.nbytes:.2f} of the size")


def _measured(decoders: dict[str, Decode], content: bytes, rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in decoders}
    for round_ in range(rounds + 1):
        for name, decode in decoders.items():
            begin = time.perf_counter()
            decode(content)
            if round_:
                taken[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in taken.items()}


def _accepted_damage(decode: Decode, content: bytes) -> list[str]:
    """Which damage is not reported: 200 bytes or the last 14 missing, a byte changed inside."""
    changed = bytearray(content)
    changed[len(content) // 2] ^= 0xFF
    accepted = []
    for what, broken in (
        ("200 bytes less", content[:-200]),
        ("14 bytes less", content[:-14]),
        ("a byte changed", bytes(changed)),
    ):
        try:
            decode(broken)
            accepted.append(what)
        except Exception:  # every decoder has errors of its own
            continue
    return accepted


def _found(image: np.ndarray | None) -> np.ndarray:
    if image is None:
        raise ValueError("no image")
    return image


def _plain_reader(content: bytes) -> np.ndarray:
    """`t2sda.images` where neither simplejpeg nor imagecodecs is installed."""
    found = faster.simplejpeg, faster.imagecodecs
    faster.simplejpeg = faster.imagecodecs = None
    try:
        return read_image(content)
    finally:
        faster.simplejpeg, faster.imagecodecs = found


def _optional(module: str, function: str) -> Decode | None:
    try:
        return getattr(importlib.import_module(module), function)
    except ImportError:
        return None


def _installed(decoders: dict[str, Decode | None]) -> dict[str, Decode]:
    return {name: decode for name, decode in decoders.items() if decode is not None}


if __name__ == "__main__":
    raise SystemExit(main())
