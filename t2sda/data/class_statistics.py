"""How many pixels of every class an image has: counted once a dataset, kept in a cache."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from t2sda.data.datasets import SegmentationDataset
from t2sda.data.parallel import Progress, mapped, unseen
from t2sda.data.replacements import UNUSABLE
from t2sda.distributed import barrier, is_main
from t2sda.errors import UserError
from t2sda.files import atomic_writer, make_writable_dir

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "T2SDA_CACHE"
LABELS_LOOKED_AT = 16
"""How many labels of a source are looked at for one that holds a class at all."""
_VERSION = 1


def class_pixels(
    dataset: SegmentationDataset, progress: Progress = unseen, on_error: str = "stop"
) -> np.ndarray:
    """Pixels of every class in every image of a labelled dataset, at the labels' own size.

    They are read from the cache, where they lie under the names, sizes and times of the label files
    and the taxonomy; else counted, on all cores, and written there whole. Of several ranks the main
    one counts.

    Args:
        dataset: labelled.
        progress: shows how far the counting is.
        on_error: "stop", or "skip": an image whose label cannot be used has no pixels of any class,
            so that it is never drawn for one; a warning says how many there are.
    Returns:
        (N, num_classes + 1) int64; the last column counts ignored pixels.
    Raises:
        UserError: if the dataset has no labels, a label cannot be used, or the cache not be
            written.
    """
    if not dataset.labelled:
        raise UserError(f"dataset '{dataset.name}' has no labels, so there is nothing to count")
    count = dataset.class_pixels
    identity = dataset.label_identity()
    if on_error == "skip":  # a label may be unusable because of its image
        count = functools.partial(_pixels_if_usable, dataset)
        identity = itertools.chain(identity, dataset.image_identity(), ("usable",))
    name = _hash_of(identity)
    path = cache_dir() / "class_pixels" / f"{name}.npy"
    shape = (len(dataset), dataset.taxonomy.num_classes + 1)
    if is_main():
        pixels = _found_or_counted(dataset, count, path, shape, progress)
        _warn_unusable(dataset, pixels)
    barrier()
    return _found_or_counted(dataset, count, path, shape, progress)


def check_has_labelled_pixels(dataset: SegmentationDataset) -> None:
    """Raise UserError if some labels, spread over the set, hold ignored pixels alone.

    Of such a source nothing is learned, and the loss is 0. A label that cannot be read ends the
    search: it is reported when it is due.
    """
    looked_at = np.linspace(0, len(dataset) - 1, min(len(dataset), LABELS_LOOKED_AT)).astype(int)
    for index in looked_at.tolist():
        try:
            if dataset.class_pixels(index)[:-1].any():
                return
        except UNUSABLE:
            return
    raise UserError(
        f"dataset '{dataset.name}': all pixels of {len(looked_at)} of its labels are ignored, the "
        f"first one that of {dataset.name_of(0)}, so nothing can be learned of it; check its "
        f"labels and the ids of its taxonomy with `t2sda data check`"
    )


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


def _hash_of(identity: Iterable[str]) -> str:
    digest = hashlib.sha256(f"{_VERSION}".encode())
    for text in identity:
        digest.update(text.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()[:32]


def _pixels_if_usable(dataset: SegmentationDataset, index: int) -> np.ndarray:
    try:
        return dataset.class_pixels(index)
    except UNUSABLE:
        return np.zeros(dataset.taxonomy.num_classes + 1, dtype=np.int64)


def _warn_unusable(dataset: SegmentationDataset, pixels: np.ndarray) -> None:
    unusable = np.flatnonzero(pixels.sum(axis=1) == 0)
    if len(unusable):
        logger.warning(
            f"DATA.ON_ERROR skip: {len(unusable)} of {len(dataset)} labels of '{dataset.name}' "
            f"cannot be used, the first one that of {dataset.name_of(int(unusable[0]))}; their "
            f"images are not drawn. `t2sda data check` says what is wrong"
        )


def _found_or_counted(
    dataset: SegmentationDataset,
    count: Callable[[int], np.ndarray],
    path: Path,
    shape: tuple[int, int],
    progress: Progress,
) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == shape:
            return found
    except (OSError, ValueError, EOFError):  # not there, or damaged by something else
        pass
    make_writable_dir(path.parent, CACHE_VARIABLE)
    what = f"counting classes of {dataset.name}"
    counted = np.stack(list(mapped(count, len(dataset), what, progress)))
    own = path.with_name(f"{path.stem}.{os.getpid()}.npy")  # another run may count at this moment
    with atomic_writer(own) as partial, partial.open("wb") as file:
        np.save(file, counted, allow_pickle=False)
    own.replace(path)
    return counted
