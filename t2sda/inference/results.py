"""Result files: written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.files import written_whole
from t2sda.inference.visualisation import colour_map, overlay, side_by_side

Draw = Callable[[np.ndarray, np.ndarray, Taxonomy], np.ndarray]

KINDS: dict[str, Draw] = {
    "overlay": overlay,
    "color": lambda image, labels, taxonomy: colour_map(labels, taxonomy),
    "trainid": lambda image, labels, taxonomy: labels,
    "panel": side_by_side,
}
"""What can be drawn of a picture (H, W, 3) and its train ids (H, W), by the name in the file."""


def write_results(
    target: Path, image: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy, kinds: Sequence[str]
) -> None:
    """Write `target`_KIND.png of every kind; folders on the way to it are made."""
    for kind in kinds:
        path = target.with_name(f"{target.name}_{kind}.png")
        write_png(path, KINDS[kind](image, labels, taxonomy))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB or (H, W) uint8; `path` is the old file or the whole new one.

    Raises:
        UserError: if it cannot be written.
    """
    content = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    encoded = cv2.imencode(".png", content)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial:
            partial.write_bytes(encoded.tobytes())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); finished results are whole"
        ) from None
