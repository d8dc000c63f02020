"""Result files: written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.files import atomic_write, json_text
from t2sda.images.files import TooManyPixelsError
from t2sda.inference.rle import masks_of
from t2sda.inference.segmenter import Segmentation
from t2sda.inference.visualisation import (
    PLAIN,
    OverlayStyle,
    class_counts,
    color_map,
    overlay,
    side_by_side,
)

Draw = Callable[[np.ndarray, np.ndarray, Taxonomy, OverlayStyle], np.ndarray]

DRAWN: dict[str, Draw] = {
    "overlay": overlay,
    "color": lambda image, labels, taxonomy, style: color_map(labels, taxonomy),
    "trainid": lambda image, labels, taxonomy, style: labels,
    "labelid": lambda image, labels, taxonomy, style: label_ids(labels, taxonomy),
    "panel": side_by_side,
}
"""What can be drawn of an image (H, W, 3) and its train ids (H, W), by the name in the file."""
PROBABILITIES, CONFIDENCE, JSON = "probabilities", "confidence", "json"
CITYSCAPES_LABEL_IDS = {
    **{"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17},
    **{"traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23},
    **{"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31},
    **{"motorcycle": 32, "bicycle": 33},
}
"""Of cityscapesscripts' labels.py."""
KINDS = (*DRAWN, CONFIDENCE, JSON, PROBABILITIES)
_SUFFIXES = {PROBABILITIES: ".npy", JSON: ".json"}
"""Of what is no image."""
PNG_COMPRESSION = 1
"""Of 9: levels above it take several times as long for files a tenth smaller."""


def label_ids(labels: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Train ids (H, W) -> label ids, as the benchmark server of Cityscapes wants them.

    What is no class becomes 0, "unlabeled".
    """
    check_label_ids(taxonomy)
    table = np.zeros(IGNORE_INDEX + 1, dtype=np.uint8)
    table[: taxonomy.num_classes] = [CITYSCAPES_LABEL_IDS[name] for name in taxonomy.class_names]
    return table[labels]


def check_label_ids(taxonomy: Taxonomy, setting: str = "--kind labelid") -> None:
    """Raise UserError unless all classes are classes of Cityscapes; `setting` asked for it."""
    unknown = [name for name in taxonomy.class_names if name not in CITYSCAPES_LABEL_IDS]
    if unknown:
        raise UserError(
            f"{setting}: '{unknown[0]}', a class of this model, has no label id of Cityscapes; "
            f"`t2sda infer --kind trainid` writes train ids"
        )


def result_paths(target: Path, kinds: Sequence[str]) -> list[Path]:
    """What `write_results` writes."""
    return [
        target.with_name(f"{target.name}_{kind}{_SUFFIXES.get(kind, '.png')}") for kind in kinds
    ]


def write_results(
    target: Path,
    image: np.ndarray,
    found: Segmentation,
    taxonomy: Taxonomy,
    kinds: Sequence[str],
    style: OverlayStyle = PLAIN,
) -> None:
    """Write `target`_KIND.png (.npy, .json); folders on the way to it are made."""
    for kind, path in zip(kinds, result_paths(target, kinds), strict=True):
        if kind == PROBABILITIES:
            assert found.probabilities is not None
            write_npy(path, found.probabilities)
        elif kind == CONFIDENCE:
            assert found.confidence is not None
            write_png(path, found.confidence)
        elif kind == JSON:
            atomic_write(path, json_text(described(found.labels, taxonomy)) + "\n")
        else:
            write_png(path, DRAWN[kind](image, found.labels, taxonomy, style))


def described(labels: np.ndarray, taxonomy: Taxonomy) -> dict[str, Any]:
    """What is where in an image, as JSON has it.

    Args:
        labels: (H, W) train ids; what is no class counts as unlabelled.
        taxonomy: names of the classes.

    Returns:
        `taxonomy`, `size` (height, width), `unlabelled_pixels` and of every class that occurs
        `train_id`, `name`, `pixels`, `share` of all pixels, and its mask as COCO's `segmentation`.
    """
    size = list(labels.shape)
    counts = class_counts(labels, taxonomy)
    masks = masks_of(labels)
    return {
        "taxonomy": taxonomy.name,
        "size": size,
        "unlabelled_pixels": int(labels.size - counts.sum()),
        "classes": [
            {
                "train_id": index,
                "name": name,
                "pixels": int(counts[index]),
                "share": round(int(counts[index]) / labels.size, 6),
                "segmentation": {"size": size, "counts": masks[index]},
            }
            for index, name in enumerate(taxonomy.class_names)
            if index in masks
        ],
    }


def write_png(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB or (H, W) uint8; `path` is the old file or the whole new one.

    Raises:
        TooManyPixelsError: if a side is longer than PNG's encoder takes.
        UserError: if it cannot be written.
    """
    content = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    atomic_write(
        path, encoded(".png", content, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION], path)
    )


def encoded(ending: str, image: np.ndarray, options: Sequence[int], name: object) -> bytes:
    """An image file of a format, as `cv2.imencode` makes it.

    Raises:
        TooManyPixelsError: if a side is longer than the format's encoder takes, which is 65,500
            pixels of a JPEG and a million of a PNG file.
    """
    is_encoded, content = cv2.imencode(ending, image, options)
    if not is_encoded:
        raise TooManyPixelsError(
            f"{name}: {image.shape[0]}x{image.shape[1]} (height x width) are longer than a side of "
            f"a {ending} file can be; make the image smaller, or cut it into parts"
        )
    return content.tobytes()


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array as NumPy does; raises UserError if it cannot be written."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    atomic_write(path, buffer.getvalue())
