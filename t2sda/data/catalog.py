"""The catalog: datasets by name, found below the folders that T2SDA_DATASETS lists."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from t2sda.data.datasets import DrawnStreets, FileDataset, SegmentationDataset
from t2sda.data.taxonomies import CITYSCAPES_19, STREET_GROUPS_11, ClassGroup, Taxonomy
from t2sda.errors import MissingFileError, UserError
from t2sda.registry import Registry

DATASETS_VARIABLE = "T2SDA_DATASETS"


class OpensDataset(Protocol):
    """What the catalog holds: something with a name that can be opened."""

    @property
    def name(self) -> str:
        """As settings call it."""

    def open(self) -> SegmentationDataset:
        """Find the files; raises MissingFileError where they are not."""


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset of files.

    Args:
        name: as settings call it.
        root: its folder; relative ones are looked for below every folder of T2SDA_DATASETS
            (separated by ':' as in PATH), then below the working directory.
        images: pattern below `root`, with * and **, or with {stem} where `stems` is given.
        labels: path below `root` with {stem}, the image's name without folder and ending; None: no
            labels.
        taxonomy: classes and ids.
        stems: a list file below `root`, one stem per line.
        class_groups: classes to merge before scoring.
    """

    name: str
    root: str
    images: str
    labels: str | None
    taxonomy: Taxonomy
    stems: str | None = None
    class_groups: tuple[ClassGroup, ...] = ()

    def __post_init__(self) -> None:
        if (self.stems is not None) != ("{stem}" in self.images):
            raise UserError(
                f"dataset '{self.name}': `images` has {{stem}} exactly when `stems` names a list "
                f"file; found images={self.images!r}, stems={self.stems!r}"
            )
        if self.labels is not None and "{stem}" not in self.labels:
            raise UserError(
                f"dataset '{self.name}': labels={self.labels!r} has no {{stem}}, so all images "
                f"would share one label"
            )

    def open(self) -> FileDataset:
        """Find the files.

        Raises:
            MissingFileError: if the folder, the list file or the images are not there.
        """
        root = self._find_root()
        pairs = [(image, self._label_of(image, root)) for image in self._image_paths(root)]
        return FileDataset(self.name, pairs, self.taxonomy, self.class_groups)

    def _find_root(self) -> Path:
        candidates = [folder / self.root for folder in dataset_folders()]
        for candidate in candidates:
            if candidate.is_dir():
                return candidate
        raise MissingFileError(
            f"dataset '{self.name}': no folder {' or '.join(map(str, candidates))}; "
            f"set {DATASETS_VARIABLE} to the folder that holds {self.root}/"
        )

    def _image_paths(self, root: Path) -> list[Path]:
        if self.stems is None:
            paths = sorted(root.glob(self.images))
        else:
            paths = [root / self.images.format(stem=stem) for stem in self._stems(root)]
        if not paths:
            raise MissingFileError(
                f"dataset '{self.name}': no file matches {root / self.images}; check the folder, "
                f"and that {DATASETS_VARIABLE} names the right one"
            )
        return paths

    def _stems(self, root: Path) -> list[str]:
        list_path = root / str(self.stems)
        if not list_path.is_file():
            raise MissingFileError(f"dataset '{self.name}': the list file {list_path} is missing")
        return list_path.read_text(encoding="utf-8").split()

    def _label_of(self, image_path: Path, root: Path) -> Path | None:
        return root / self.labels.format(stem=image_path.stem) if self.labels else None


@dataclass(frozen=True)
class DrawnStreetsSpec:
    """A dataset that is drawn; see `t2sda.data.datasets.DrawnStreets` for the arguments."""

    name: str
    domain: str
    seed: int
    num_images: int
    image_size: tuple[int, int] = (256, 512)

    def open(self) -> DrawnStreets:
        """Nothing to find: scenes are drawn when asked for."""
        return DrawnStreets(self.name, self.domain, self.seed, self.num_images, self.image_size)


DATASETS: Registry[OpensDataset] = Registry("dataset", "DATASETS")


def register_dataset(spec: OpensDataset) -> None:
    """Make a dataset known by its name; raises ValueError if the name is taken."""
    DATASETS.add(spec.name, spec)


def open_dataset(name: str) -> SegmentationDataset:
    """Find the dataset called `name`.

    Raises:
        UnknownNameError: if none is registered under it.
        MissingFileError: if its files are not where they are looked for.
    """
    return DATASETS.get(name).open()


def dataset_folders() -> list[Path]:
    """Where relative roots are looked for: T2SDA_DATASETS first, then the working directory."""
    listed = os.environ.get(DATASETS_VARIABLE, "").split(os.pathsep)
    return [*(Path(folder).expanduser() for folder in listed if folder), Path()]


def _register_streets() -> None:
    for domain in ("clear", "hazy"):
        register_dataset(DrawnStreetsSpec(f"streets_{domain}_train", domain, 1, num_images=2000))
        register_dataset(DrawnStreetsSpec(f"streets_{domain}_val", domain, 2, num_images=50))


def _register_rendered_and_photographed() -> None:
    def spec(name: str, root: str, stems: str, groups: bool) -> DatasetSpec:
        return DatasetSpec(
            name=name,
            root=root,
            images="images/{stem}.jpg",
            labels="labels/{stem}.png",
            taxonomy=CITYSCAPES_19,
            stems=stems,
            class_groups=STREET_GROUPS_11 if groups else (),
        )

    for split in ("train", "val"):
        register_dataset(spec(f"rendered_{split}", "source_procgen", f"{split}.txt", groups=False))
    for split in ("train", "val", "test_dusk"):
        register_dataset(
            spec(f"camvid_{split}", f"target_camvid/{split}", f"../{split}.txt", groups=True)
        )


REGISTER_SHIPPED: tuple[Callable[[], None], ...] = (
    _register_streets,
    _register_rendered_and_photographed,
)
"""Called once by `t2sda.builtin`."""
