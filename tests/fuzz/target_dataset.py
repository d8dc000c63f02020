"""Dataset files: what they name is opened and the first samples are loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from t2sda.config import yaml_text
from t2sda.data import catalog
from t2sda.data.dataset_files import OPTIONAL, REQUIRED, read_dataset_file
from t2sda.structures import IGNORE_INDEX
from tests.fuzz.byte_inputs import damaged
from tests.fuzz.harness import Target
from tests.fuzz.yaml_inputs import Choose, changed_lines, path, value

VALID = """\
name: harbour
root: harbour
images: images/*.png
labels: labels/{stem}.png
classes: [road, car, quay]
"""
LISTED = VALID.replace("images/*.png", "'images/{stem}.png'") + "stems: list.txt\n"
MAPPED = VALID + "ids: {road: 0, car: [1, 2], quay: 3-9}\nignored: [255]\n"
PATTERNS: dict[str, Choose] = dict.fromkeys(("images", "labels", "root", "stems"), path)
ANY: dict[str, Choose] = {
    **dict.fromkeys(
        (*REQUIRED, *OPTIONAL), lambda dice: value(dice) if dice.random() < 0.9 else None
    ),
    **PATTERNS,
    "x" * 3000: value,
}


def run(text: bytes, folder: Path) -> None:
    """Every label that is loaded has its image's size and ids of classes alone."""
    for kind, shape in (("images", (8, 12, 3)), ("labels", (8, 12))):
        (folder / "harbour" / kind).mkdir(parents=True)
        for stem in "ab":
            pixels = np.random.default_rng(0).integers(0, 4, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"harbour/{kind}/{stem}.png")
    (folder / "harbour/list.txt").write_text("a\nb\n")
    (folder / "set.yaml").write_bytes(text)
    for spec in read_dataset_file(folder / "set.yaml"):
        dataset = spec.open()
        for index in range(min(len(dataset), 2)):
            sample = dataset.load(index)
            assert sample.image.dtype == np.uint8
            if sample.label is not None:
                assert sample.label.shape == sample.image.shape[:2]
                ids = set(np.unique(sample.label).tolist()) - {IGNORE_INDEX}
                assert ids <= set(range(spec.taxonomy.num_classes))


def _fill_in_anything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(catalog, "check_label_pattern", lambda *_: None)


def _follow_any_depth(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(yaml_text, "MAX_DEPTH", 10**6)


PATTERNS_ALONE = [changed_lines(text, PATTERNS) for text in (VALID, LISTED)]
CHANGED = st.one_of(*(changed_lines(text, ANY) for text in (VALID, LISTED, MAPPED)))
TARGET = Target(
    st.one_of(*PATTERNS_ALONE, CHANGED, CHANGED, damaged(CHANGED)),
    run,
    (_fill_in_anything, _follow_any_depth),
)
