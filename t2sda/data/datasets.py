"""Datasets: images and labels by index, with the file's name in every complaint."""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from t2sda.data.label_formats import LabelReader
from t2sda.data.taxonomies import CITYSCAPES_19, ClassGroup, LabelIdError, Taxonomy
from t2sda.data.transforms import AS_STORED, Box, Resize, resize_image
from t2sda.errors import MissingFileError, UnreadableFileError, UserError
from t2sda.files import is_missing
from t2sda.images import Header, read_header, read_image, read_label
from t2sda.images.orientation import UPRIGHT, upright_size
from t2sda.structures import IGNORE_INDEX


@dataclass(frozen=True)
class Sample:
    """One image as its dataset stores it."""

    name: str
    """Where it comes from: the image's path, or what was drawn."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    label: np.ndarray | None
    """(H, W) uint8 train ids; None where the set is unlabelled."""


class SegmentationDataset(Dataset[tuple[Tensor, Tensor]], ABC):
    """Images by index, labelled or not; `torch.utils.data.DataLoader` takes it as it is.

    Attributes:
        name: as registered.
        taxonomy: the classes of its labels.
        class_groups: classes to merge, in prediction and label alike, before scoring; empty: none.
        weights: how often each of `members` is drawn, summing to 1; empty: all images alike.
        packed_size: bound (height, width) that its images were resized to; None: as they came.
        has_made_labels: whether a network made its labels.
    """

    name: str
    taxonomy: Taxonomy
    class_groups: tuple[ClassGroup, ...]
    weights: tuple[float, ...] = ()
    packed_size: tuple[int, int] | None = None
    has_made_labels: ClassVar[bool] = False

    @property
    def members(self) -> tuple[SegmentationDataset, ...]:
        """The datasets that it joins: itself, if it is one."""
        return (self,)

    @property
    def image_shares(self) -> np.ndarray | None:
        """(N,) how often every image is drawn, summing to 1; None: all alike."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The image (3, H, W) uint8 RGB and its label (H, W) int64 train ids.

        The label is IGNORE_INDEX where there is none, so everywhere in an unlabelled set.

        Raises:
            IndexError: if there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"dataset '{self.name}' has {len(self)} samples, none at {index}")
        sample = self.load(index)
        label = sample.label
        if label is None:
            label = np.full(sample.image.shape[:2], IGNORE_INDEX)
        image = np.ascontiguousarray(sample.image.transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(label.astype(np.int64))

    @abstractmethod
    def load(self, index: int, with_label: bool = True) -> Sample:
        """The sample at `index`; its label is None where unlabelled or not asked for."""

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether its samples have labels."""

    def name_of(self, index: int) -> str:
        """Where the sample at `index` comes from; nothing is decoded for it."""
        return f"{self.name}[{index}]"

    def relative_name(self, index: int) -> str:
        """The name of the sample at `index` wherever the set lies: below its root, with /."""
        return self.name_of(index)

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width) of the image at `index`; cheaper than `load` where it can be."""
        height, width, _ = self.load(index, with_label=False).image.shape
        return height, width

    def load_image(
        self, index: int, resize: Resize = AS_STORED, window: Box | None = None
    ) -> np.ndarray:
        """(h, w, 3) uint8 RGB: the image at `index` after `resize`, cut to `window` where given."""
        image = self.load(index, with_label=False).image
        image = resize_image(image, resize.size_for(image.shape[:2]))
        return image if window is None else window.of(image)

    def load_label(self, index: int) -> np.ndarray:
        """(H, W) uint8 train ids of the sample at `index`; cheaper than `load` where it can be."""
        label = self.load(index).label
        assert label is not None, "asked for the label of an unlabelled set"
        return label

    def class_pixels(self, index: int) -> np.ndarray:
        """(num_classes + 1,) int64: pixels of every class, then ignored ones, of the label as it is
        distributed; a set that stores resized labels stores these counts beside them.
        """
        counts = np.bincount(self.load_label(index).ravel(), minlength=IGNORE_INDEX + 1)
        return np.append(counts[: self.taxonomy.num_classes], counts[IGNORE_INDEX])

    @abstractmethod
    def label_identity(self) -> Iterator[str]:
        """Text that changes when the labels do; statistics are cached under its hash."""

    def fingerprint(self) -> dict[str, str | int]:
        """Its name, how many images it has, and a digest of their names below their folder.

        Another folder of the same files has the same one.
        """
        names = [self.name_of(index) for index in range(len(self))]
        folder = os.path.commonpath([Path(name).parent for name in names])
        digest = hashlib.sha256()
        for name in names:
            digest.update(os.path.relpath(name, folder).encode(errors="surrogateescape"))
            digest.update(b"\0")
        return {"name": self.name, "images": len(names), "files_sha256": digest.hexdigest()}

    def image_identity(self) -> Iterator[str]:
        """Text that changes when the images' files do: the name, size and time of each."""
        for index in range(len(self)):
            name = self.name_of(index)
            yield name
            with contextlib.suppress(OSError):  # drawn, or reported when it is read
                status = Path(name).stat()
                yield f"{status.st_size} {status.st_mtime_ns}"


class FileDataset(SegmentationDataset):
    """Image files, and label files beside them.

    Args:
        pairs: (image path, label path or None) in a fixed order.
        label_reader: label file -> raw ids or colors.
        passed_over: files that lie beside the images but were not taken, by kind.
        counts_path: (N, num_classes + 1) counts as `class_pixels` gives them, of labels that were
            larger when they were counted; None: the label files are counted.
        packed_size: see SegmentationDataset.
        root: that images have names below; None: they go by their whole path.
    """

    def __init__(
        self,
        name: str,
        pairs: list[tuple[Path, Path | None]],
        taxonomy: Taxonomy,
        class_groups: tuple[ClassGroup, ...] = (),
        label_reader: LabelReader = read_label,
        passed_over: Counter[str] | None = None,
        counts_path: Path | None = None,
        packed_size: tuple[int, int] | None = None,
        root: Path | None = None,
    ) -> None:
        self.name = name
        self.pairs = pairs
        self.taxonomy = taxonomy
        self.class_groups = class_groups
        self.label_reader = label_reader
        self.passed_over = passed_over or Counter()
        self.counts_path = counts_path
        self.packed_size = packed_size
        self.root = root

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def labelled(self) -> bool:
        """Whether every image has a label file."""
        return self.pairs[0][1] is not None

    def name_of(self, index: int) -> str:
        """The image's path."""
        return str(self.pairs[index][0])

    def relative_name(self, index: int) -> str:
        """The image's path below the root."""
        path = self.pairs[index][0]
        return (path if self.root is None else Path(os.path.relpath(path, self.root))).as_posix()

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width) from the header of the image at `index`."""
        return read_header(self.pairs[index][0]).size

    def load(self, index: int, with_label: bool = True) -> Sample:
        """Decode the files at `index`.

        Raises:
            MissingFileError: an image without label, or a file that vanished.
            UserError: a damaged file, unknown ids, or a label of another size than its image.
        """
        image = self.load_image(index)
        labelled = with_label and self.pairs[index][1] is not None
        return Sample(self.name_of(index), image, self.load_label(index) if labelled else None)

    def load_image(
        self, index: int, resize: Resize = AS_STORED, window: Box | None = None
    ) -> np.ndarray:
        """Decode the image file at `index` alone; see `read_image` for how it is resized."""
        image = read_image(self.pairs[index][0], resize.size_for)
        return image if window is None else window.of(image)

    def load_label(self, index: int) -> np.ndarray:
        """Decode the label file at `index` alone; raises what `load` does.

        Of the image the header is read, for its size.
        """
        image_path, label_path = self.pairs[index]
        assert label_path is not None, "asked for the label of an unlabelled set"
        if is_missing(label_path):
            raise MissingFileError(
                f"dataset '{self.name}': image {image_path} has no label; expected {label_path}"
            )
        try:
            label = self.taxonomy.to_train_ids(self.label_reader(label_path))
        except LabelIdError as error:
            raise LabelIdError(f"dataset '{self.name}': {label_path}: {error}") from None
        check_label_fits(image_path, read_header(image_path), label_path, label.shape)
        return label

    def class_pixels(self, index: int) -> np.ndarray:
        """From `counts_path`, or of the label file at `index`."""
        return super().class_pixels(index) if self.counts_path is None else self._counts[index]

    @cached_property
    def _counts(self) -> np.ndarray:
        assert self.counts_path is not None
        shape = (len(self), self.taxonomy.num_classes + 1)
        try:
            counts = np.load(self.counts_path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{self.counts_path}: cannot be read ({error}); pack the set again, or delete "
                f"`class_pixels` in its YAML file"
            ) from None
        if counts.shape != shape or counts.dtype != np.int64:
            raise UserError(
                f"{self.counts_path}: holds {counts.dtype} {counts.shape}, but the set needs int64 "
                f"{shape}; pack it again, or delete `class_pixels` in its YAML file"
            )
        return counts

    def label_identity(self) -> Iterator[str]:
        """Name, size and time of every label file, then how they are read."""
        paths = [label_path for _, label_path in self.pairs]
        for path in (*paths, *([self.counts_path] if self.counts_path else ())):
            assert path is not None, "asked for the labels of an unlabelled set"
            yield str(path.absolute())
            with contextlib.suppress(FileNotFoundError):  # reported when it is read
                status = path.stat()
                yield f"{status.st_size} {status.st_mtime_ns}"
        yield f"{self.taxonomy!r} {self.label_reader.__qualname__}"


class DrawnStreets(SegmentationDataset):
    """Street scenes of `t2sda.streets`, drawn when they are asked for.

    Args:
        domain: one of `t2sda.streets.DOMAINS`.
        seed: another seed draws other scenes.
        num_images: length of the set.
        image_size: (height, width).
    """

    class_groups: tuple[ClassGroup, ...] = ()

    def __init__(
        self, name: str, domain: str, seed: int, num_images: int, image_size: tuple[int, int]
    ) -> None:
        self.name = name
        self.domain = domain
        self.seed = seed
        self.num_images = num_images
        self.image_size = image_size
        self.taxonomy = CITYSCAPES_19

    def __len__(self) -> int:
        return self.num_images

    @property
    def labelled(self) -> bool:
        """Drawn scenes always know their labels."""
        return True

    def name_of(self, index: int) -> str:
        """The set's name and the scene's number."""
        return f"{self.name}_{index:05d}"

    def size_of(self, index: int) -> tuple[int, int]:
        """All scenes have one size."""
        return self.image_size

    def load(self, index: int, with_label: bool = True) -> Sample:
        """Draw the scene at `index`."""
        image, label = _drawn(self.domain, self.seed, index, self.image_size)
        return Sample(self.name_of(index), image, label if with_label else None)

    def label_identity(self) -> Iterator[str]:
        """The arguments that everything is drawn from, and the first label, for another drawing."""
        yield f"{self.domain} {self.seed} {self.num_images} {self.image_size}"
        yield hashlib.sha256(self.load_label(0).tobytes()).hexdigest()


def check_label_fits(
    image_path: Path, image: Header, label_path: Path, label_size: tuple[int, ...]
) -> None:
    """Raise UnreadableFileError unless a label lies on its image, both upright.

    Args:
        image_path: for messages.
        image: what its file says.
        label_path: of which the EXIF orientation is looked at.
        label_size: (height, width) upright.
    """
    orientation = read_header(label_path).orientation
    if orientation not in (UPRIGHT, image.orientation):
        raise UnreadableFileError(
            f"{label_path} has EXIF orientation {orientation}, but its image {image_path} has "
            f"{image.orientation}, so they cannot lie on each other; remove the label's tag if it "
            f"was drawn on the image as it is seen, else give both the same"
        )
    if label_size == image.size:
        return
    text = (
        f"{label_path} is {_text(label_size)}, but its image {image_path} is {_text(image.size)}; "
        f"a label must have its image's size"
    )
    if label_size == upright_size(image.size, image.orientation):
        text += (
            f". The image is turned by its EXIF orientation {image.orientation}, and the label was "
            f"drawn on it unturned: turn the label, or remove the tag from the image"
        )
    raise UnreadableFileError(text)


def check_name(name: str) -> str:
    """The name; raises UserError if no file can be named after it."""
    if "/" in name or "\\" in name:
        raise UserError(f"dataset '{name}': a name has no / or \\; files are named after it")
    return name


@lru_cache(maxsize=2)  # label and image of a sample are asked for one after the other
def _drawn(
    domain: str, seed: int, index: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    from t2sda.streets import draw_street  # here: a set of files needs none of it

    image, label = draw_street(domain, seed, index, size)
    image.flags.writeable = label.flags.writeable = False
    return image, label


def _text(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]} (height x width)"
