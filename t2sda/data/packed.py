"""Packed datasets: resized images and train ids in one LMDB file, of which a crop reads its rows.

A training crop needs a few hundred rows of a picture of two megapixels, and decoding all of it
takes nearly all of the loader's time. A packed dataset keeps what decoding and resizing gave:

- images as plain uint8 rows: a crop is a copy out of the memory map, 0.02 ms where lossless codecs
  that save a fifth to a half of the disk take 2 to 13 ms for it (`benchmarks/decoders.py`);
- labels as train ids, compressed with Zstandard to a fiftieth (0.05 ms);
- the class counts of the original labels, so that rare-class sampling draws what it would have.

LMDB, because random access by index is needed, and part of a value is. It hands out a value as a
view of the memory map that all processes share, its commits survive a crash, and it depends on
nothing. WebDataset reads in order only; LitData and MosaicML Streaming read whole samples, need
clouds' client libraries, and the latter pins NumPy below 2.2 and transformers below 5.

A folder is a packed dataset when it holds `packed.json`, which is written last. It and the records
are JSON and plain bytes: nothing in them is executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import lmdb
import numpy as np

from t2sda.data.datasets import Sample, SegmentationDataset, check_name
from t2sda.data.taxonomies import ClassGroup, Taxonomy
from t2sda.data.transforms import AS_STORED, Box, Resize, resize_image
from t2sda.errors import UnreadableFileError, UserError

FORMAT = 1
HEADER_NAME = "packed.json"


class PackedDataset(SegmentationDataset):
    """A folder that `t2sda data pack` wrote.

    Args:
        folder: that holds `packed.json`.
    Raises:
        UserError: if it is not whole, or of another version's format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        header = _header_of(folder)
        try:
            self.name = check_name(str(header["name"]))
            self.bound = tuple(int(side) for side in header["bound"])
            self.identity = str(header["identity"])
            self.taxonomy = taxonomy_from(header["taxonomy"])
            self.class_groups = tuple(
                ClassGroup(name, tuple(train_ids)) for name, train_ids in header["class_groups"]
            )
            self._length = int(header["num_images"])
            self._labelled = bool(header["labelled"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder / HEADER_NAME}: damaged, or written by another version of t2sda "
                f"({type(error).__name__}: {error}); pack the dataset again"
            ) from None
        self._check_whole()

    def __len__(self) -> int:
        return self._length

    @property
    def labelled(self) -> bool:
        """Whether labels were packed as well."""
        return self._labelled

    def name_of(self, index: int) -> str:
        """Folder and number, and the name it had in the original."""
        return f"{self.folder}[{index}] ({self._record(index)['name']})"

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width) as packed."""
        height, width = self._record(index)["size"]
        return int(height), int(width)

    def load(self, index: int, with_label: bool = True) -> Sample:
        """Read the sample at `index`, in the size it was packed in."""
        label = self.load_label(index) if with_label and self.labelled else None
        return Sample(self.name_of(index), self.load_image(index), label)

    def load_image(
        self, index: int, resize: Resize = AS_STORED, window: Box | None = None
    ) -> np.ndarray:
        """The image at `index`; of an image that keeps its size, only the window's rows are read.

        Raises:
            UserError: if a larger size is asked for than was packed.
        """
        size = self.size_of(index)
        wanted = resize.size_for(size)
        self._check_not_enlarged(size, wanted)
        with _environment(self.folder).begin(buffers=True) as transaction:
            stored = transaction.get(image_key(index))
            if stored is None or len(stored) != size[0] * size[1] * 3:
                raise self._damaged(index)
            image = np.frombuffer(stored, np.uint8).reshape(*size, 3)
            if wanted == size:
                return (image if window is None else window.of(image)).copy()
            resized = resize_image(image, wanted)
        return resized if window is None else window.of(resized)

    def load_label(self, index: int) -> np.ndarray:
        """(H, W) uint8 train ids in the size they were packed in."""
        size = self.size_of(index)
        with _environment(self.folder).begin(buffers=True) as transaction:
            stored = bytes(transaction.get(label_key(index), b""))
        try:
            return np.frombuffer(imagecodecs.zstd_decode(stored), np.uint8).reshape(size)
        except (RuntimeError, ValueError):
            raise self._damaged(index) from None

    def class_pixels(self, index: int) -> np.ndarray:
        """Counts of the original label, before it was resized."""
        return np.array(self._record(index)["class_pixels"], dtype=np.int64)

    def label_identity(self) -> Iterator[str]:
        """What identified the original when it was packed."""
        yield self.identity

    def _record(self, index: int) -> dict[str, Any]:
        with _environment(self.folder).begin(buffers=True) as transaction:
            stored = transaction.get(record_key(index))
            if stored is None:
                raise self._damaged(index)
            return json.loads(bytes(stored))

    def _damaged(self, index: int) -> UnreadableFileError:
        return UnreadableFileError(
            f"{self.folder}: sample {index} is missing or damaged; pack the dataset again"
        )

    def _check_whole(self) -> None:
        """A file that was cut short would kill the process (SIGBUS) where its pages are missing."""
        path = self.folder / "data.mdb"
        try:
            environment = _environment(self.folder)
            entries, last_page = environment.stat()["entries"], environment.info()["last_pgno"]
            whole = (last_page + 1) * environment.stat()["psize"] <= path.stat().st_size
        except (lmdb.Error, OSError) as error:
            raise UserError(f"{path}: cannot be read ({error}); pack the dataset again") from None
        if not whole or entries < self._length * (3 if self._labelled else 2):
            raise UserError(
                f"{path}: cut short: {entries} entries, {path.stat().st_size} bytes; copy the "
                f"folder again, or pack the dataset again"
            )

    def _check_not_enlarged(self, size: tuple[int, int], wanted: tuple[int, int]) -> None:
        if wanted[0] > size[0] or wanted[1] > size[1]:
            raise UserError(
                f"{self.folder}: packed at {size[0]}x{size[1]} (height x width), but "
                f"{wanted[0]}x{wanted[1]} are asked for; set DATA.SOURCE_SIZE or DATA.TARGET_SIZE "
                f"to {self.bound}, or pack the dataset at a larger --size"
            )


def is_packed(folder: Path) -> bool:
    """Whether a folder is a packed dataset, finished or not."""
    return (folder / HEADER_NAME).is_file() or (folder / "data.mdb").is_file()


def image_key(index: int) -> bytes:
    """Key of (H, W, 3) uint8 pixels."""
    return b"%010d/image" % index


def label_key(index: int) -> bytes:
    """Key of (H, W) uint8 train ids, compressed with Zstandard."""
    return b"%010d/label" % index


def record_key(index: int) -> bytes:
    """Key of a JSON object with name, size and class_pixels."""
    return b"%010d/record" % index


def taxonomy_to(taxonomy: Taxonomy) -> dict[str, Any]:
    """A taxonomy as JSON, without its tables of raw ids: a packed label holds train ids."""
    raw_tables = ("train_ids", "label_colours")
    stored = {item.name: getattr(taxonomy, item.name) for item in fields(taxonomy)}
    return {name: value for name, value in stored.items() if name not in raw_tables}


def taxonomy_from(stored: dict[str, Any]) -> Taxonomy:
    """What `taxonomy_to` made of a taxonomy, whose files hold train ids."""
    return Taxonomy(**{name: _as_tuples(value) for name, value in stored.items()})


def _as_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_as_tuples(item) for item in value)
    if isinstance(value, dict):
        return {name: _as_tuples(item) for name, item in value.items()}
    return value


def _header_of(folder: Path) -> dict[str, Any]:
    path = folder / HEADER_NAME
    if not path.is_file():
        raise UserError(
            f"{folder}: a packed dataset that was not finished ({HEADER_NAME} is missing); run "
            f"`t2sda data pack` again"
        )
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        found = header["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: cannot be read; pack the dataset again") from None
    if found != FORMAT:
        raise UserError(
            f"{path}: format {found}, but this version of t2sda reads format {FORMAT}; pack the "
            f"dataset again"
        )
    return header


@cache
def _environment(folder: Path) -> lmdb.Environment:
    """One a process and folder: LMDB allows no second; without locks, children may share it."""
    return lmdb.open(
        str(folder), readonly=True, lock=False, readahead=False, create=False, max_spare_txns=2
    )
