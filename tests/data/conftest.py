"""A small labelled dataset on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.data.catalog import DATASETS, DATASETS_VARIABLE, DatasetSpec
from t2sda.data.taxonomies import CITYSCAPES_19

NUM_IMAGES = 5


@pytest.fixture
def harbour(tmp_path: Path) -> DatasetSpec:
    """Five 40x60 images with labels in images/ and labels/."""
    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / "harbour" / folder).mkdir(parents=True)
    for index in range(NUM_IMAGES):
        image = generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        label = generator.integers(0, 19, (40, 60), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"harbour/images/{index}.png")
        Image.fromarray(label).save(tmp_path / f"harbour/labels/{index}.png")
    return DatasetSpec(
        name="harbour",
        root=str(tmp_path / "harbour"),
        images="images/*.png",
        labels="labels/{stem}.png",
        taxonomy=CITYSCAPES_19,
    )


@pytest.fixture
def registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it; T2SDA_DATASETS is not set."""
    monkeypatch.setattr(DATASETS, "_components", dict(DATASETS._components))
    monkeypatch.delenv(DATASETS_VARIABLE, raising=False)
