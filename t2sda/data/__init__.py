"""Datasets, and the pairs of source and target crops that training reads.

`open_dataset` is all that a script of one's own needs: what it returns goes into torch's loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2sda.data.datasets import SegmentationDataset


def open_dataset(name: str, files: Sequence[str] = ()) -> SegmentationDataset:
    """The dataset called `name`, for training and evaluation alike.

    `len(dataset)` is the number of images, `dataset[i]` is an image, (3, H, W) uint8 RGB, and its
    label, (H, W) int64 train ids. It can be pickled, so `torch.utils.data.DataLoader` takes it with
    any number of workers; batches need images of one size.

    Args:
        name: as `t2sda data list` shows it, or the folder of a packed dataset.
        files: YAML files with datasets of your own, see docs/data.md.
    Raises:
        UserError: if there is no such dataset, or its files are not found.
    """
    from t2sda.data import catalog, dataset_files, shipped  # a light package: `import t2sda.data`

    shipped.register_shipped()
    dataset_files.register_dataset_files(files)
    return catalog.open_dataset(name)
