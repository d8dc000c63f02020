"""Runs that have just begun, and datasets made on the fly."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from t2sda.data.datasets import Sample, SegmentationDataset
from t2sda.data.taxonomies import CITYSCAPES_19
from tests.deployed import write_checkpoint

T2SDA_SETTINGS = (
    *("META_ARCH.NAME", "T2SDA", "DATASETS.TARGET", "streets_hazy_train"),
    *("TRANSLATION.NAME", "FDA", "HOOKS.NAMES", "[EmaTeacher, DynamicReweighting]"),
)


class Noise(SegmentationDataset):
    """Blocks of classes whose color says which; every image but the last must be gone by then."""

    def __init__(self, name: str, count: int, size: tuple[int, int] = (64, 96)) -> None:
        self.name, self.taxonomy, self.class_groups = name, CITYSCAPES_19, ()
        self.count, self.size = count, size
        self._loaded: list[weakref.ref[np.ndarray]] = []
        self.most_alive = 0

    def __len__(self) -> int:
        return self.count

    @property
    def labelled(self) -> bool:
        return True

    def load(self, index: int, with_label: bool = True) -> Sample:
        dice = np.random.default_rng(index)
        blocks = dice.integers(0, 6, (2, 3))
        label = blocks.repeat(32, 0).repeat(32, 1)[: self.size[0], : self.size[1]]
        noise = dice.integers(0, 40, (*label.shape, 3))
        image = (noise + np.array(CITYSCAPES_19.palette)[label] * 0.8).astype(np.uint8)
        self._loaded.append(weakref.ref(image))
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self._loaded))
        return Sample(f"{self.name}/{index}", image, label.astype(np.uint8))

    def label_identity(self) -> Iterator[str]:
        yield self.name


@pytest.fixture(scope="session")
def t2sda_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of T2S-DA."""
    folder = tmp_path_factory.mktemp("runs") / "t2sda"
    write_checkpoint(folder, *T2SDA_SETTINGS)
    return folder


@pytest.fixture(scope="session")
def source_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder without a teacher."""
    folder = tmp_path_factory.mktemp("runs") / "source"
    write_checkpoint(folder)
    return folder
