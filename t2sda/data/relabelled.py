"""A registered dataset with other labels: those that a network made of its images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from t2sda.data.catalog import open_dataset
from t2sda.data.datasets import Sample, SegmentationDataset, check_name
from t2sda.data.taxonomies import LabelIdError, Taxonomy
from t2sda.data.transforms import AS_STORED, Box, Resize
from t2sda.errors import MissingFileError, UnreadableFileError, UserError
from t2sda.files import is_missing, user_path
from t2sda.images import read_label


@dataclass(frozen=True)
class RelabelledSpec:
    """A dataset of another one's images.

    Args:
        name: as settings call it.
        images_of: registered name of the other one.
        labels: folder of PNG files with train ids, called as the images are (`png_name`).
        taxonomy: classes of the labels.
    """

    name: str
    images_of: str
    labels: Path
    taxonomy: Taxonomy

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def location(self) -> str:
        """Of the labels."""
        return f"{self.labels}, images of {self.images_of}"

    def open(self) -> RelabelledDataset:
        """Open the other one; its files, and those of the labels, are read when asked for.

        Raises:
            UnknownNameError: if there is none of that name.
            UserError: if the folder of labels is not there.
        """
        if is_missing(self.labels):
            raise MissingFileError(
                f"dataset '{self.name}': no folder {self.labels}; make the labels with "
                f"`t2sda pseudo-label`"
            )
        return RelabelledDataset(self, open_dataset(self.images_of))


class RelabelledDataset(SegmentationDataset):
    """Images of one dataset, labels of a folder.

    Args:
        spec: name, folder and classes.
        images: the other dataset, labelled or not.
    """

    has_made_labels = True

    def __init__(self, spec: RelabelledSpec, images: SegmentationDataset) -> None:
        self.name = spec.name
        self.taxonomy = replace(spec.taxonomy, train_ids={}, label_colors={})
        self.class_groups = images.class_groups
        self.packed_size = images.packed_size
        self.folder = spec.labels
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        """Always."""
        return True

    def name_of(self, index: int) -> str:
        """That of the image."""
        return self.images.name_of(index)

    def relative_name(self, index: int) -> str:
        """That of the image."""
        return self.images.relative_name(index)

    def size_of(self, index: int) -> tuple[int, int]:
        """That of the image."""
        return self.images.size_of(index)

    def load(self, index: int, with_label: bool = True) -> Sample:
        """The image, and its label of the folder."""
        label = self.load_label(index) if with_label else None
        return replace(self.images.load(index, with_label=False), label=label)

    def load_image(
        self, index: int, resize: Resize = AS_STORED, window: Box | None = None
    ) -> np.ndarray:
        """The image alone."""
        return self.images.load_image(index, resize, window)

    def load_label(self, index: int) -> np.ndarray:
        """(H, W) uint8 train ids.

        Raises:
            MissingFileError: if there is no file for the image.
            UserError: if it is damaged, of another size than the image, or holds unknown ids.
        """
        path = self._label_path(index)
        if is_missing(path):
            raise MissingFileError(
                f"dataset '{self.name}': image {self.name_of(index)} has no pseudo-label; expected "
                f"{path}; make it by running `t2sda pseudo-label` again"
            )
        label = read_label(path)
        if label.shape != self.size_of(index):
            raise UnreadableFileError(
                f"{path} is {label.shape[0]}x{label.shape[1]} (height x width), but its image "
                f"{self.name_of(index)} is {self.size_of(index)[0]}x{self.size_of(index)[1]}"
            )
        try:
            return self.taxonomy.to_train_ids(label)
        except LabelIdError as error:
            raise LabelIdError(f"dataset '{self.name}': {path}: {error}") from None

    def label_identity(self) -> Iterator[str]:
        """Name, size and time of every label file."""
        for index in range(len(self)):
            path = self._label_path(index)
            yield str(path.absolute())
            with contextlib.suppress(FileNotFoundError):  # reported when it is read
                status = path.stat()
                yield f"{status.st_size} {status.st_mtime_ns}"

    def _label_path(self, index: int) -> Path:
        return self.folder / png_name(self.relative_name(index))


def png_name(name: str) -> PurePosixPath:
    """Of what is predicted for an image, below a folder, whatever the image's name is."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    return PurePosixPath(*parts).with_suffix(".png")


def check_own_png_names(dataset: SegmentationDataset, setting: str) -> None:
    """Raise UserError for two images whose predictions would be one file."""
    owners: dict[PurePosixPath, str] = {}
    for index in range(len(dataset)):
        name = dataset.relative_name(index)
        if owners.setdefault(png_name(name), name) != name:
            raise UserError(
                f"{setting}: {owners[png_name(name)]} and {name} of '{dataset.name}' would "
                f"both be written to {png_name(name)}; rename one"
            )


def labels_folder(text: str, beside: Path) -> Path:
    """A folder as a dataset file names it, relative to that file."""
    return beside.absolute() / user_path(text, "labels")
