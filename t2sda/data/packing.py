"""Packing: every image resized once, every label turned into train ids once, into plain files.

A packed set is a folder with `dataset.yaml`, which describes it like any dataset of one's own,
images and labels as PNG, and a manifest. The images are stored, not compressed: with all checks
they are decoded in 1.5 ms where the weakest compression takes 12 to 28 ms, which is most of what a
crop costs, and halves the size (`benchmarks/decoders.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from t2sda.data.class_statistics import class_pixels
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.label_tables import TAXONOMIES
from t2sda.data.manifest import MANIFEST_NAME, digest_of, manifest_text
from t2sda.data.parallel import Progress, mapped, unseen
from t2sda.data.taxonomies import Taxonomy
from t2sda.data.transforms import Resize, resize_label
from t2sda.errors import UserError
from t2sda.files import PARTIAL_SUFFIX, atomic_writer, make_writable_dir
from t2sda.images import read_image, read_label

DESCRIPTION_NAME = "dataset.yaml"
STEMS_NAME = "stems.txt"
COUNTS_NAME = "class_pixels.npy"
FORMAT = 1
"""Another one starts anew what an older version began."""

_PLAIN = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
_STORED = (*_PLAIN, cv2.IMWRITE_PNG_COMPRESSION, 0)
_COMPRESSED = (*_PLAIN, cv2.IMWRITE_PNG_COMPRESSION, 1)
"""A label to a fiftieth; with OpenCV's default filter, decoding it takes 7 times as long."""


def pack_dataset(
    dataset: SegmentationDataset,
    bound: tuple[int, int],
    output: Path,
    progress: Progress = unseen,
    num_processes: int | None = None,
) -> None:
    """Write `dataset`, resized to fit `bound` (height, width), into the folder `output`.

    All is written beside it, into a folder ending in `.partial`, which takes its name at the end.
    That of the same files and size is gone on with: every file in it was written whole.

    Raises:
        UserError: if `output` is in use, the disk too small, or a file cannot be used or written.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file; choose a new folder")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output}: not empty; choose another folder, or remove it")
    plan = _fingerprint(dataset, bound)
    partial = output.with_name(f"{output.name}.{plan}{PARTIAL_SUFFIX}")
    for name in ("images", "labels"):
        make_writable_dir(partial / name, "--output")
    _check_space(partial, dataset, bound)
    packer = _Packer(dataset, bound, partial)
    with _writing(partial):
        what = f"packing {dataset.name}"
        digests: dict[str, str] = {}
        for written in mapped(packer, len(dataset), what, progress, num_processes):
            digests |= written
        digests |= packer.describe(progress)
        for path in partial.rglob("*"):  # what a killed packing left of a file
            if path.is_file() and path.relative_to(partial).as_posix() not in digests:
                path.unlink()
        with atomic_writer(partial / MANIFEST_NAME) as path:
            path.write_text(manifest_text(digests), encoding="utf-8")
        partial.replace(output)


def packed_bytes(dataset: SegmentationDataset, bound: tuple[int, int]) -> int:
    """About how large the packed set becomes, from the size of its first image."""
    height, width = Resize(bound).size_for(dataset.size_of(0))
    return len(dataset) * (height * width * 3 + 30_000)


class _Packer:
    """Writes the files of one sample, called with its index; goes to other processes."""

    def __init__(self, dataset: SegmentationDataset, bound: tuple[int, int], folder: Path) -> None:
        self.dataset = dataset
        self.bound = bound
        self.folder = folder
        self.width = max(6, len(str(len(dataset))))

    def __call__(self, index: int) -> dict[str, str]:
        """The files' digests by name; raises UserError for a file that cannot be used."""
        name = f"{self._stem(index)}.png"
        image_path, label_path = self.folder / "images" / name, self.folder / "labels" / name
        if not _readable(image_path, read_image):
            image = self.dataset.load_image(index, Resize(self.bound))
            _write_png(image_path, image[..., ::-1], _STORED)  # OpenCV takes BGR
        paths = [image_path]
        if self.dataset.labelled:
            paths.append(label_path)
            if not _readable(label_path, read_label):
                size = Resize(self.bound).size_for(self.dataset.size_of(index))
                label = resize_label(self.dataset.load_label(index), size)
                _write_png(label_path, label, _COMPRESSED)
        return {path.relative_to(self.folder).as_posix(): digest_of(path) for path in paths}

    def describe(self, progress: Progress) -> dict[str, str]:
        """Write what belongs to the whole set; returns its digests by name."""
        stems = [self._stem(index) for index in range(len(self.dataset))]
        description = _description(self.dataset, self.bound)
        texts = {
            STEMS_NAME: "".join(f"{stem}\n" for stem in stems),
            DESCRIPTION_NAME: yaml.safe_dump(description, sort_keys=False, allow_unicode=True),
        }
        for name, text in texts.items():
            with atomic_writer(self.folder / name) as path:
                path.write_text(text, encoding="utf-8")
        names = list(texts)
        if self.dataset.labelled:
            counts = class_pixels(self.dataset, progress)
            with atomic_writer(self.folder / COUNTS_NAME) as path, path.open("wb") as file:
                np.save(file, counts, allow_pickle=False)
            names.append(COUNTS_NAME)
        return {name: digest_of(self.folder / name) for name in names}

    def _stem(self, index: int) -> str:
        """The number, for the order, and the original's name, as far as any system takes it."""
        original = re.sub(r"[^A-Za-z0-9._-]", "_", Path(self.dataset.name_of(index)).stem)[:80]
        return f"{index:0{self.width}d}_{original}"


def _description(dataset: SegmentationDataset, bound: tuple[int, int]) -> dict[str, Any]:
    """What `dataset.yaml` holds."""
    description: dict[str, Any] = {
        "name": f"{dataset.name}_{bound[0]}x{bound[1]}",
        "root": ".",
        "stems": STEMS_NAME,
        "images": "images/{stem}.png",
        "packed_size": list(bound),
    }
    if dataset.labelled:
        description |= {"labels": "labels/{stem}.png", "class_pixels": COUNTS_NAME}
    description |= class_keys(dataset.taxonomy)
    if dataset.class_groups:
        names = dataset.taxonomy.class_names
        description["groups"] = {
            group.name: [names[train_id] for train_id in group.train_ids]
            for group in dataset.class_groups
        }
    return description


def class_keys(taxonomy: Taxonomy) -> dict[str, Any]:
    """The classes as a YAML file says them: by name where there is one, else one by one."""
    plain = replace(taxonomy, train_ids={}, label_colors={}, others=None)
    for name, known in TAXONOMIES.items():
        same = replace(plain, name=name) == known and plain.things == known.things
        if same:
            return {"taxonomy": name}
    names = taxonomy.class_names
    classes: dict[str, Any] = {
        "classes": list(names),
        "palette": [list(color) for color in taxonomy.palette],
    }
    if taxonomy.things:
        classes["things"] = list(taxonomy.things)
    if taxonomy.subsets:
        classes["subsets"] = {
            name: [names[train_id] for train_id in train_ids]
            for name, train_ids in taxonomy.subsets.items()
        }
    return classes


def _readable(path: Path, read: Any) -> bool:
    try:
        read(path)
    except UserError:
        return False
    return True


def _write_png(path: Path, pixels: np.ndarray, options: tuple[int, ...]) -> None:
    _, content = cv2.imencode(".png", pixels, options)
    with atomic_writer(path) as partial:
        partial.write_bytes(content.tobytes())


@contextlib.contextmanager
def _writing(partial: Path) -> Iterator[None]:
    try:
        yield
    except UserError:  # of the original; a missing file is an OSError as well
        raise
    except OSError as error:
        raise UserError(
            f"{partial}: cannot be written ({error}); free space, or whatever it needs, and run "
            f"the command again: what is packed stays"
        ) from None


def _fingerprint(dataset: SegmentationDataset, bound: tuple[int, int]) -> str:
    """Of names, sizes and times of the files, of what the labels mean, and of the size wanted."""
    digest = hashlib.sha256(f"{FORMAT} {bound} {dataset.class_groups}".encode())
    labels = dataset.label_identity() if dataset.labelled else ()
    for text in itertools.chain(labels, dataset.image_identity()):
        digest.update(text.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()[:8]


def _check_space(partial: Path, dataset: SegmentationDataset, bound: tuple[int, int]) -> None:
    written = sum(path.stat().st_size for path in partial.rglob("*"))
    needed = packed_bytes(dataset, bound) - written
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise UserError(
            f"--output {partial.parent}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are "
            f"free; choose another disk or a smaller --size"
        )
