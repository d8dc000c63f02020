"""Datasets in torch's own loader."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from t2sda.data import open_dataset
from t2sda.data.catalog import DATASETS, DatasetSpec
from t2sda.structures import IGNORE_INDEX


@pytest.mark.parametrize("num_workers", [0, 1])
def test_torch_loader_takes_a_dataset(num_workers: int) -> None:
    dataset = open_dataset("streets_hazy_val")
    images, labels = next(iter(DataLoader(dataset, batch_size=2, num_workers=num_workers)))
    assert (images.shape, images.dtype) == ((2, 3, 256, 512), torch.uint8)
    assert (labels.shape, labels.dtype) == ((2, 256, 512), torch.int64)
    sample = dataset.load(1)
    np.testing.assert_array_equal(images[1].permute(1, 2, 0).numpy(), sample.image)
    np.testing.assert_array_equal(labels[1].numpy(), sample.label)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Afterwards the registry holds no dataset of this module."""
    yield
    DATASETS._components.pop("my_harbour", None)


@pytest.mark.usefixtures("forgotten")
def test_own_files_go_through_the_loader_and_the_end_is_found(
    harbour: DatasetSpec, tmp_path: Path
) -> None:
    text = f"""
name: my_harbour
root: {harbour.root}
images: images/*.png
labels: labels/{{stem}}.png
taxonomy: {harbour.taxonomy.name}
"""
    (tmp_path / "my_harbour.yaml").write_text(text, encoding="utf-8")
    dataset = open_dataset("my_harbour", files=[str(tmp_path / "my_harbour.yaml")])
    assert len(dataset) == len(list(dataset)) == 5
    batches = list(DataLoader(dataset, batch_size=2, shuffle=True))
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    with pytest.raises(IndexError, match="'my_harbour' has 5 samples, none at 5"):
        dataset[5]


def test_labels_of_an_unlabelled_set_are_ignored(harbour: DatasetSpec) -> None:
    image, label = replace(harbour, labels=None).open()[0]
    assert image.shape == (3, 40, 60)
    assert label.shape == (40, 60)
    assert (label == IGNORE_INDEX).all()


def test_a_pickled_dataset_gives_the_same(harbour: DatasetSpec) -> None:
    dataset = harbour.open()
    again = pickle.loads(pickle.dumps(dataset))
    for first, second in zip(dataset[3], again[3], strict=True):
        assert torch.equal(first, second)


def test_the_fingerprint_follows_the_files_not_the_folder(
    harbour: DatasetSpec, tmp_path: Path
) -> None:
    before = harbour.open().fingerprint()
    Path(harbour.root).rename(tmp_path / "elsewhere")
    moved = replace(harbour, root=str(tmp_path / "elsewhere"))
    assert moved.open().fingerprint() == before
    (tmp_path / "elsewhere/images/3.png").rename(tmp_path / "elsewhere/images/7.png")
    renamed = moved.open().fingerprint()
    assert renamed["images"] == before["images"] == 5
    assert renamed["files_sha256"] != before["files_sha256"]
