"""Image files of the real sets' sizes and formats, for benchmarks: no dataset has to be there.

Drawn streets, which have a sensor's noise, with more of it (white, sigma 1.1 of 255). The PNG files
have 2.8 MB (GTA5's size) and 2.9 MB (Cityscapes'); the real ones have 2.3 MB (57 GB / 24,966 and
11 GB / 5,000), so these decode a little slower. Where the classes are, and how often a crop holds a
rare one, is that of the drawn streets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from t2sda.data.catalog import DatasetSpec
from t2sda.data.label_tables import CITYSCAPES_LABEL_IDS, GTA5_LABEL_IDS
from t2sda.data.taxonomies import Taxonomy
from t2sda.streets import draw_street
from t2sda.structures import IGNORE_INDEX

GTA5_SIZE, CITYSCAPES_SIZE = (1052, 1914), (1024, 2048)
NOISE = 1.1


def gta5_png(folder: Path, num_images: int) -> DatasetSpec:
    """PNG images of 1914x1052, labels as palette PNGs of GTA5's ids."""
    _write(folder, num_images, GTA5_SIZE, ".png", GTA5_LABEL_IDS, _save_palette)
    return _spec("gta5_png", folder, ".png", GTA5_LABEL_IDS)


def gta5_jpeg(folder: Path, num_images: int) -> DatasetSpec:
    """The same as JPEG of quality 95."""
    _write(folder, num_images, GTA5_SIZE, ".jpg", GTA5_LABEL_IDS, _save_palette)
    return _spec("gta5_jpeg", folder, ".jpg", GTA5_LABEL_IDS)


def cityscapes_png(folder: Path, num_images: int) -> DatasetSpec:
    """PNG images of 2048x1024, labels as grey PNGs of Cityscapes' ids."""
    size = CITYSCAPES_SIZE
    _write(folder, num_images, size, ".png", CITYSCAPES_LABEL_IDS, _save_grey)
    return _spec("cityscapes_png", folder, ".png", CITYSCAPES_LABEL_IDS)


def _spec(name: str, folder: Path, ending: str, taxonomy: Taxonomy) -> DatasetSpec:
    return DatasetSpec(name, str(folder), f"images/*{ending}", "labels/{stem}.png", taxonomy)


def _write(
    folder: Path,
    num_images: int,
    size: tuple[int, int],
    ending: str,
    taxonomy: Taxonomy,
    save_label: Callable[[np.ndarray, Taxonomy, Path], None],
) -> None:
    raw_ids = np.zeros(256, np.uint8)
    for raw, train in sorted(taxonomy.train_ids.items(), reverse=True):
        raw_ids[train] = raw
    for name in ("images", "labels", "train_ids"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(num_images):
        image, label = draw_street("clear", 11, index, size)
        noise = np.random.default_rng(index).normal(0, NOISE, image.shape)
        noisy = np.clip(image + noise, 0, 255).round().astype(np.uint8)
        # PNG has no quality and ignores it
        Image.fromarray(noisy).save(folder / f"images/{index:05d}{ending}", quality=95)
        save_label(raw_ids[label], taxonomy, folder / f"labels/{index:05d}.png")
        Image.fromarray(label).save(folder / f"train_ids/{index:05d}.png")


def _save_palette(raw: np.ndarray, taxonomy: Taxonomy, path: Path) -> None:
    colors = np.zeros((256, 3), np.uint8)
    for raw_id, train in taxonomy.train_ids.items():
        if train != IGNORE_INDEX:
            colors[raw_id] = taxonomy.palette[train]
    image = Image.fromarray(raw, mode="P")
    image.putpalette(colors.ravel().tolist())
    image.save(path)


def _save_grey(raw: np.ndarray, _: Taxonomy, path: Path) -> None:
    Image.fromarray(raw).save(path)
