"""Datasets: images and labels by index, with the file's name in every complaint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2sda.data.decode import read_image, read_label
from t2sda.data.streets import draw_street
from t2sda.data.taxonomies import CITYSCAPES_19, ClassGroup, LabelIdError, Taxonomy
from t2sda.errors import MissingFileError, UserError


@dataclass(frozen=True)
class Sample:
    """One picture as its dataset stores it."""

    name: str
    """Where it comes from: the image's path, or what was drawn."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    label: np.ndarray | None
    """(H, W) uint8 train ids; None where the set is unlabelled."""


class SegmentationDataset(ABC):
    """Pictures by index, labelled or not.

    Attributes:
        name: as registered.
        taxonomy: the classes of its labels.
        class_groups: classes to merge, in prediction and label alike, before scoring; empty: none.
    """

    name: str
    taxonomy: Taxonomy
    class_groups: tuple[ClassGroup, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int, with_label: bool = True) -> Sample:
        """The sample at `index`; its label is None where unlabelled or not asked for."""

    @property
    @abstractmethod
    def labelled(self) -> bool:
        """Whether its samples have labels."""


class FileDataset(SegmentationDataset):
    """Image files, and label files beside them.

    Args:
        pairs: (image path, label path or None) in a fixed order.
    """

    def __init__(
        self,
        name: str,
        pairs: list[tuple[Path, Path | None]],
        taxonomy: Taxonomy,
        class_groups: tuple[ClassGroup, ...] = (),
    ) -> None:
        self.name = name
        self.pairs = pairs
        self.taxonomy = taxonomy
        self.class_groups = class_groups

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def labelled(self) -> bool:
        """Whether every image has a label file."""
        return self.pairs[0][1] is not None

    def load(self, index: int, with_label: bool = True) -> Sample:
        """Decode the files at `index`.

        Raises:
            MissingFileError: an image without label, or a file that vanished.
            UserError: a damaged file, unknown ids, or a label of another size than its image.
        """
        image_path, label_path = self.pairs[index]
        image = read_image(image_path)
        if not with_label or label_path is None:
            return Sample(str(image_path), image, None)
        return Sample(str(image_path), image, self._load_label(image, image_path, label_path))

    def _load_label(self, image: np.ndarray, image_path: Path, label_path: Path) -> np.ndarray:
        if not label_path.is_file():
            raise MissingFileError(
                f"dataset '{self.name}': image {image_path} has no label; expected {label_path}"
            )
        try:
            label = self.taxonomy.to_train_ids(read_label(label_path))
        except LabelIdError as error:
            raise LabelIdError(f"dataset '{self.name}': {label_path}: {error}") from None
        if label.shape != image.shape[:2]:
            raise UserError(
                f"dataset '{self.name}': {label_path} is {_size(label)}, but its image "
                f"{image_path} is {_size(image)}; a label must have its image's size"
            )
        return label


class DrawnStreets(SegmentationDataset):
    """Street scenes of `t2sda.data.streets`, drawn when they are asked for.

    Args:
        domain: one of `t2sda.data.streets.DOMAINS`.
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

    def load(self, index: int, with_label: bool = True) -> Sample:
        """Draw the scene at `index`."""
        image, label = draw_street(self.domain, self.seed, index, self.image_size)
        name = f"{self.name}_{index:05d}"
        return Sample(name, image, label if with_label else None)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]}x{image.shape[1]} (height x width)"
