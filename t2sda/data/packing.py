"""Writing a packed dataset: every image resized once, every label turned into train ids once."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import imagecodecs
import lmdb
import numpy as np

from t2sda import __version__
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.packed import (
    FORMAT,
    HEADER_NAME,
    image_key,
    is_packed,
    label_key,
    record_key,
    taxonomy_to,
)
from t2sda.data.parallel import Progress, mapped, unseen
from t2sda.data.transforms import Resize, resize_label
from t2sda.errors import UserError
from t2sda.files import PARTIAL_SUFFIX, make_writable_dir, written_whole

PLAN_NAME = "plan.json"
LOCK_NAME = "packing.lock"
COMMIT_PERIOD = 16
"""Samples per commit: what a killed packing does again at most."""


class PackedSample(NamedTuple):
    """What is stored of one sample."""

    record: bytes
    image: bytes
    label: bytes | None


class SamplePacker:
    """Makes the stored form of the sample at an index; goes to other processes.

    Args:
        dataset: the original.
        bound: images are resized to fit it, ratio kept.
        first: index of the first sample that is due.
    """

    def __init__(self, dataset: SegmentationDataset, bound: tuple[int, int], first: int) -> None:
        self.dataset = dataset
        self.resize = Resize(bound)
        self.first = first

    def __call__(self, offset: int) -> PackedSample:
        """Raises UserError for a file that cannot be used."""
        index = self.first + offset
        image = self.dataset.load_image(index, self.resize)
        record: dict[str, Any] = {
            "name": self.dataset.name_of(index),
            "size": [int(side) for side in image.shape[:2]],
        }
        label = None
        if self.dataset.labelled:
            record["class_pixels"] = self.dataset.class_pixels(index).tolist()
            resized = resize_label(self.dataset.load_label(index), image.shape[:2])
            label = bytes(imagecodecs.zstd_encode(np.ascontiguousarray(resized).tobytes()))
        return PackedSample(json.dumps(record).encode(), image.tobytes(), label)


def pack_dataset(
    dataset: SegmentationDataset,
    bound: tuple[int, int],
    output: Path,
    progress: Progress = unseen,
    num_processes: int | None = None,
) -> None:
    """Write `dataset`, resized to fit `bound` (height, width), into the folder `output`.

    All is written beside it, into a folder ending in `.partial`, which takes its name at the end. A
    packing that was stopped goes on where it was, if dataset, files and size are the same.

    Raises:
        UserError: if `output` is in use, the disk too small, or a file cannot be used or written.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file; choose a new folder")
    if is_packed(output) or (output.exists() and any(output.iterdir())):
        raise UserError(f"--output {output}: not empty; choose another folder, or remove it")
    partial = output.with_name(output.name + PARTIAL_SUFFIX)
    make_writable_dir(partial, "--output")
    plan = _plan(dataset, bound)
    with _writing(partial), _alone_in(partial):
        _check_same_plan(partial, plan)
        _check_space(partial, dataset, bound)
        with contextlib.closing(_writable(partial, dataset, bound)) as environment:
            _write_samples(environment, dataset, bound, progress, num_processes)
            environment.sync(True)
        with written_whole(partial / HEADER_NAME) as path:
            path.write_text(json.dumps(plan), encoding="utf-8")
        partial.replace(output)
        for name in (PLAN_NAME, LOCK_NAME, "lock.mdb"):
            (output / name).unlink(missing_ok=True)


def packed_bytes(dataset: SegmentationDataset, bound: tuple[int, int]) -> int:
    """About how large the packed dataset becomes, from the size of its first image."""
    height, width = Resize(bound).size_for(dataset.size_of(0))
    return len(dataset) * (height * width * 3 + 30_000)


@contextlib.contextmanager
def _alone_in(partial: Path) -> Iterator[None]:
    """Keep other processes from packing into the same folder meanwhile."""
    try:
        with filelock.FileLock(partial / LOCK_NAME, timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(
            f"{partial}: another process is packing there; wait for it, or choose another --output"
        ) from None


@contextlib.contextmanager
def _writing(partial: Path) -> Iterator[None]:
    try:
        yield
    except UserError:  # of the original; a missing file is an OSError as well
        raise
    except (lmdb.Error, OSError) as error:
        raise UserError(
            f"{partial}: cannot be written ({error}); mend that, such as by freeing space, and run "
            f"the command again: what is packed stays"
        ) from None


def _write_samples(
    environment: lmdb.Environment,
    dataset: SegmentationDataset,
    bound: tuple[int, int],
    progress: Progress,
    num_processes: int | None,
) -> None:
    done = environment.stat()["entries"] // (3 if dataset.labelled else 2)
    packer = SamplePacker(dataset, bound, done)
    what = f"packing {dataset.name}"
    samples = mapped(packer, len(dataset) - done, what, progress, num_processes)
    for indices in _chunks(done, len(dataset)):
        with environment.begin(write=True) as transaction:
            for index in indices:
                sample = next(samples)
                transaction.put(record_key(index), sample.record)
                transaction.put(image_key(index), sample.image)
                if sample.label is not None:
                    transaction.put(label_key(index), sample.label)
    for _ in samples:  # lets the progress come to its end
        raise AssertionError("more samples than indices")


def _chunks(first: int, end: int) -> Iterator[range]:
    for begin in range(first, end, COMMIT_PERIOD):
        yield range(begin, min(begin + COMMIT_PERIOD, end))


def _writable(
    folder: Path, dataset: SegmentationDataset, bound: tuple[int, int]
) -> lmdb.Environment:
    """Its map is the most that can be needed; the file grows as it is written."""
    most = len(dataset) * (bound[0] * bound[1] * 4 + (1 << 16)) + (1 << 26)
    return lmdb.open(str(folder), map_size=most)


def _plan(dataset: SegmentationDataset, bound: tuple[int, int]) -> dict[str, Any]:
    """The header of the packed dataset."""
    return {
        "format": FORMAT,
        "name": f"{dataset.name}@{bound[0]}x{bound[1]}",
        "bound": list(bound),
        "num_images": len(dataset),
        "labelled": dataset.labelled,
        "identity": _identity_of(dataset),
        "taxonomy": taxonomy_to(dataset.taxonomy),
        "class_groups": [[group.name, list(group.train_ids)] for group in dataset.class_groups],
        "t2sda": __version__,
    }


def _identity_of(dataset: SegmentationDataset) -> str:
    """Hash over names, sizes and times of the files, and over what the labels mean."""
    digest = hashlib.sha256()
    labels = dataset.label_identity() if dataset.labelled else ()
    for text in itertools.chain(labels, dataset.image_identity()):
        digest.update(text.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def _check_same_plan(partial: Path, plan: dict[str, Any]) -> None:
    path = partial / PLAN_NAME
    stored = json.loads(json.dumps(plan))
    try:
        same = not path.exists() or json.loads(path.read_text(encoding="utf-8")) == stored
    except ValueError:
        same = False
    if not same:
        raise UserError(
            f"{partial}: a packing was begun there, of other files, another dataset or another "
            f"--size; remove that folder, or choose another --output"
        )
    with written_whole(path) as whole:
        whole.write_text(json.dumps(plan), encoding="utf-8")


def _check_space(partial: Path, dataset: SegmentationDataset, bound: tuple[int, int]) -> None:
    written = sum(path.stat().st_size for path in partial.iterdir())
    needed = packed_bytes(dataset, bound) - written
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise UserError(
            f"--output {partial.parent}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are "
            f"free; choose another disk or a smaller --size"
        )
