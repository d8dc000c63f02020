"""How many pixels of every class an image has: counted once a dataset, kept in a cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from t2sda.data.datasets import SegmentationDataset
from t2sda.data.parallel import Progress, mapped, unseen
from t2sda.data.replacements import UNUSABLE
from t2sda.distributed import barrier, is_main
from t2sda.errors import UserError
from t2sda.files import make_writable_dir, written_whole

CACHE_VARIABLE = "T2SDA_CACHE"
_VERSION = 1
_UNUSABLE_MARK = -1


def class_pixels(
    dataset: SegmentationDataset,
    progress: Progress = unseen,
    skip: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Pixels of every class in every image of a labelled dataset, at the labels' own size.

    They are read from the cache, where they lie under the names, sizes and times of the label files
    and the taxonomy; else counted, on all cores, and written there whole. Of several ranks the main
    one counts.

    Args:
        dataset: labelled.
        progress: shows how far the counting is.
        skip: called with what is wrong with a label that cannot be used, which then has no pixel of
            any class; None: such a label is an error.
    Returns:
        (N, num_classes + 1) int64; the last column counts ignored pixels.
    Raises:
        UserError: if the dataset has no labels, a label cannot be used, or the cache not be
            written.
    """
    if not dataset.labelled:
        raise UserError(f"dataset '{dataset.name}' has no labels, so there is nothing to count")
    path = cache_dir() / "class_pixels" / f"{_identity_of(dataset)}.npy"
    shape = (len(dataset), dataset.taxonomy.num_classes + 1)
    count = partial(_counts_or_mark, dataset) if skip else dataset.class_pixels
    what = f"counting classes of {dataset.name}"
    if is_main():
        _found_or_counted(count, path, shape, what, progress)
    barrier()
    pixels = _found_or_counted(count, path, shape, what, progress)
    for index in np.flatnonzero(pixels[:, 0] == _UNUSABLE_MARK):
        try:
            pixels[index] = dataset.class_pixels(int(index))
        except UNUSABLE as error:
            if skip is None:
                raise
            skip(str(error))
            pixels[index] = 0
    return pixels


def cache_dir() -> Path:
    """T2SDA_CACHE, else t2sda/ in the user's cache folder."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "t2sda"


def class_frequencies(pixels: np.ndarray) -> np.ndarray:
    """(C,) share of every class of the labelled pixels, from (N, C + 1) counts."""
    totals = pixels[:, :-1].sum(axis=0).astype(np.float64)
    return totals / max(totals.sum(), 1.0)


def _identity_of(dataset: SegmentationDataset) -> str:
    digest = hashlib.sha256(f"{_VERSION}".encode())
    for text in dataset.label_identity():
        digest.update(text.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()[:32]


def _counts_or_mark(dataset: SegmentationDataset, index: int) -> np.ndarray:
    """The counts of a label, or _UNUSABLE_MARK in all places."""
    try:
        return dataset.class_pixels(index)
    except UNUSABLE:
        return np.full(dataset.taxonomy.num_classes + 1, _UNUSABLE_MARK, dtype=np.int64)


def _found_or_counted(
    count: Callable[[int], np.ndarray],
    path: Path,
    shape: tuple[int, int],
    what: str,
    progress: Progress,
) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == shape:
            return found
    except (OSError, ValueError, EOFError):  # not there, or damaged by something else
        pass
    make_writable_dir(path.parent, CACHE_VARIABLE)
    counted = np.stack(list(mapped(count, shape[0], what, progress)))
    own = path.with_name(f"{path.stem}.{os.getpid()}.npy")  # another run may count at this moment
    with written_whole(own) as partial_path, partial_path.open("wb") as file:
        np.save(file, counted, allow_pickle=False)
    own.replace(path)
    return counted
