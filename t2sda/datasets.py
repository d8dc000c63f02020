"""Datasets by name, from Python: `t2sda.datasets.open("streets_hazy_val")`."""

from __future__ import annotations

from dataclasses import dataclass

from t2sda.data.catalog import DATASETS, DatasetSpec, OpensDataset, open_dataset
from t2sda.data.dataset_files import register_dataset_files
from t2sda.data.datasets import SegmentationDataset
from t2sda.plugins import load_components

__all__ = ["DatasetSpec", "SegmentationDataset", "names", "open", "register", "register_files"]

load_components([])

open = open_dataset


def names() -> list[str]:
    """All that are known, whether their files are here or not."""
    return DATASETS.names()


def register(dataset: SegmentationDataset | OpensDataset) -> None:
    """Make a dataset known by its name, which settings such as DATASETS.SOURCE then take.

    One that was registered here under the same name gives way, so that a cell of a notebook can be
    run again.

    Args:
        dataset: an object of your own, or a DatasetSpec of files.
    Raises:
        ValueError: if a shipped dataset or one of a file has the name.
    """
    if dataset.name in _OWN and dataset.name in DATASETS:
        DATASETS.remove(dataset.name)
    spec = _Opened(dataset) if isinstance(dataset, SegmentationDataset) else dataset
    DATASETS.add(dataset.name, spec)
    _OWN.add(dataset.name)


def register_files(*paths: str) -> None:
    """Make the datasets of YAML files known, as DATASETS.FILES does."""
    register_dataset_files(paths)


@dataclass(frozen=True)
class _Opened:
    """An object that needs no opening."""

    dataset: SegmentationDataset
    location: str = "an object in Python"

    @property
    def name(self) -> str:
        return self.dataset.name

    def open(self) -> SegmentationDataset:
        return self.dataset


_OWN: set[str] = set()
