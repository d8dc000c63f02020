"""The catalog: datasets by name, found below the folders that T2SDA_DATASETS lists."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from t2sda.data.datasets import DrawnStreets, FileDataset, SegmentationDataset, check_name
from t2sda.data.label_formats import LABEL_FORMATS
from t2sda.data.patterns import check_below_root, check_image_pattern, check_label_pattern
from t2sda.data.taxonomies import ClassGroup, Taxonomy
from t2sda.errors import MissingFileError, UserError
from t2sda.files import is_folder, is_missing, read_small_file, subfolders, user_path
from t2sda.images.finding import Found, alternatives, counted, find_files, fixed_folder
from t2sda.registry import Registry, nearest_first

logger = logging.getLogger(__name__)

DATASETS_VARIABLE = "T2SDA_DATASETS"
MAX_LIST_BYTES = 1 << 28
"""Of a list file: some million names."""


class OpensDataset(Protocol):
    """What the catalog holds: something with a name that can be opened."""

    @property
    def name(self) -> str:
        """As settings call it."""

    @property
    def location(self) -> str:
        """Where it is or is looked for, for lists."""

    def open(self) -> SegmentationDataset:
        """Find the files; raises MissingFileError where they are not."""


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset of files.

    Args:
        name: as settings call it.
        root: its folder; relative ones are looked for below every folder of T2SDA_DATASETS
            (separated by ':' as in PATH), then below the working directory.
        images: a folder below `root`, a pattern as of `t2sda.images.finding.find_files`, or
            several of either; with {stem} where `stems` is given.
        labels: path below `root`; None: no labels. {stem} is the image's name without folder and
            ending, or the line of `stems`; {1}, {2}, … what the first, second, … wildcard of
            `images` stands for.
        taxonomy: classes and ids.
        stems: a list file below `root`, one stem per line.
        class_groups: classes to merge before scoring.
        label_format: one of `t2sda.data.label_formats.LABEL_FORMATS`.
        other_roots: further names that the folder may have.
        beside: a folder in which a relative root is looked for first.
        class_pixels: a .npy file below `root`, see `FileDataset`.
        packed_size: bound (height, width) that its images were resized to; None: as they came.
    """

    name: str
    root: str
    images: str | tuple[str, ...]
    labels: str | None
    taxonomy: Taxonomy
    stems: str | None = None
    class_groups: tuple[ClassGroup, ...] = ()
    label_format: str = "ids"
    other_roots: tuple[str, ...] = ()
    beside: str | None = None
    class_pixels: str | None = None
    packed_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.patterns:
            raise UserError(f"dataset '{self.name}': `images` is an empty list; give a pattern")
        for pattern in self.patterns:
            check_below_root(
                self.name,
                images=pattern,
                labels=self.labels,
                class_pixels=self.class_pixels,
            )
        if any((self.stems is not None) != ("{stem}" in pattern) for pattern in self.patterns):
            raise UserError(
                f"dataset '{self.name}': `images` has {{stem}} exactly when `stems` names a list "
                f"file; found images={self.images!r}, stems={self.stems!r}"
            )
        user_path(self.root, f"dataset '{self.name}': root")
        if self.stems is not None:
            for pattern in self.patterns:
                check_image_pattern(self.name, pattern)
        if self.labels is not None:
            for pattern in self.patterns:
                check_label_pattern(self.name, pattern, self.labels)
        if self.label_format not in LABEL_FORMATS:
            known = ", ".join(nearest_first(self.label_format, list(LABEL_FORMATS)))
            raise UserError(
                f"dataset '{self.name}': no label_format '{self.label_format}'; known, nearest "
                f"first: {known}"
            )
        if self.labels is not None and self.label_format == "colors":
            _check_has_colors(self.name, self.taxonomy)

    def open(self) -> FileDataset:
        """Find the files.

        Raises:
            MissingFileError: if the folder, the list file or the images are not there.
            UserError: if two images would share a label file.
        """
        root = self.find_root()
        pairs, found = self._pairs(root)
        _check_own_labels(self.name, self.images, pairs)
        return FileDataset(
            self.name,
            pairs,
            self.taxonomy,
            self.class_groups,
            label_reader=LABEL_FORMATS[self.label_format],
            passed_over=found.passed_over,
            counts_path=root / self.class_pixels if self.class_pixels is not None else None,
            packed_size=self.packed_size,
            root=root,
        )

    @property
    def patterns(self) -> tuple[str, ...]:
        """`images` as patterns without alternatives."""
        given = (self.images,) if isinstance(self.images, str) else self.images
        return tuple(single for pattern in given for single in alternatives(pattern))

    @property
    def location(self) -> str:
        """Its folder, or the names it is looked for under, below the folders of T2SDA_DATASETS."""
        try:
            return str(self.find_root())
        except MissingFileError:
            return " or ".join(f"{root}/" for root in (self.root, *self.other_roots))

    def find_root(self) -> Path:
        """Its folder: the first that holds what the image pattern begins with, else the first.

        Where none does, but one folder in them (archives are often unpacked into one of their own
        name), it is that one.

        Raises:
            MissingFileError: if there is none.
            UserError: if several folders in them do.
        """
        beginning = fixed_folder(self.patterns[0])
        return self._folder_with(beginning) or self._folders()[0]

    def label_root(self) -> Path:
        """The folder that `labels` is below: the root, or where labels were unpacked beside it."""
        root, beginning = self.find_root(), fixed_folder(self.labels or "")
        if is_folder(root / beginning):
            return root
        return self._folder_with(beginning) or root

    def _folder_with(self, beginning: Path) -> Path | None:
        """The folder of the set, or the one in it, that holds `beginning`; None if none does."""
        folders = self._folders()
        if found := next((folder for folder in folders if is_folder(folder / beginning)), None):
            return found
        of_its_own = [folder for folder in folders if Path(self.root).name not in ("", "..")]
        inner = [
            path
            for folder in of_its_own
            for path in subfolders(folder)
            if is_folder(path / beginning)
        ]
        if len(inner) > 1:
            raise UserError(
                f"dataset '{self.name}': {beginning}/ is not in {folders[0]}, but in "
                f"{' and in '.join(str(path) for path in inner[:5])}; move it, or describe the set "
                f"in a YAML file whose `root` is the right one"
            )
        for path in inner:
            logger.info("dataset '%s': %s/ was found in %s", self.name, beginning, path)
        return inner[0] if inner else None

    def _folders(self) -> list[Path]:
        """Those that are there of all that may be the set's; MissingFileError if none is."""
        roots = (self.root, *self.other_roots)
        folders = [*([Path(self.beside)] if self.beside else []), *dataset_folders()]
        candidates = [folder / user_path(root, "root") for folder in folders for root in roots]
        existing = [candidate for candidate in candidates if is_folder(candidate)]
        if not existing:
            raise MissingFileError(
                f"dataset '{self.name}': no folder "
                f"{' or '.join(map(str, dict.fromkeys(candidates)))}; "
                f"set {DATASETS_VARIABLE} to the folder that holds {self.root}/"
            )
        return existing

    def _pairs(self, root: Path) -> tuple[list[tuple[Path, Path | None]], Found]:
        """(image, its label or None) of each, and what was found."""
        label_root = self.label_root()
        if self.stems is None:
            found = find_files(root, self.patterns)
            pairs = [
                (image, self._label_of(label_root, image.stem, wildcards))
                for image, wildcards in found.files.items()
            ]
        else:
            found = Found({})
            pairs = [
                (self._image_of(root, stem), self._label_of(label_root, stem))
                for stem in self._stems(root)
            ]
        if not pairs:
            looked_for = " or ".join(str(root / pattern) for pattern in self.patterns)
            passed_over = counted(found.passed_over)
            inner = ", ".join(f"{path.name}/" for path in subfolders(root)[:5])
            raise MissingFileError(
                f"dataset '{self.name}': no file matches {looked_for}"
                f"{f' (passed over: {passed_over})' if passed_over else ''}; check the folder"
                f"{f', which holds {inner}' if inner else ''}, and that {DATASETS_VARIABLE} names "
                f"the right one"
            )
        return pairs, found

    def _image_of(self, root: Path, stem: str) -> Path:
        """The first of the patterns' files that is there, else that of the first."""
        paths = [root / pattern.replace("{stem}", stem) for pattern in self.patterns]
        return next((path for path in paths if not is_missing(path)), paths[0])

    def _stems(self, root: Path) -> list[str]:
        list_path = root / str(self.stems)
        if is_missing(list_path):
            raise MissingFileError(f"dataset '{self.name}': the list file {list_path} is missing")
        try:
            lines = read_small_file(list_path, MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(
                f"dataset '{self.name}': the list file {list_path} is not UTF-8 ({error}); save it "
                f"as UTF-8 text"
            ) from None
        if broken := [number for number, line in enumerate(lines, 1) if "\0" in line]:
            raise UserError(
                f"dataset '{self.name}': the list file {list_path}:{broken[0]} holds a NUL "
                f"character; it has one name a line"
            )
        return [line.strip() for line in lines if line.strip()]

    def _label_of(self, root: Path, stem: str, wildcards: Sequence[str] = ()) -> Path | None:
        if self.labels is None:
            return None
        return root / self.labels.format("", *wildcards, stem=stem)


@dataclass(frozen=True)
class DrawnStreetsSpec:
    """A dataset that is drawn; see `t2sda.data.datasets.DrawnStreets` for the arguments."""

    name: str
    domain: str
    seed: int
    num_images: int
    image_size: tuple[int, int] = (256, 512)

    @property
    def location(self) -> str:
        """Nowhere."""
        return "drawn when asked for"

    def open(self) -> DrawnStreets:
        """Nothing to find: scenes are drawn when asked for."""
        return DrawnStreets(self.name, self.domain, self.seed, self.num_images, self.image_size)


DATASETS: Registry[OpensDataset] = Registry(
    "dataset",
    "DATASETS",
    "One of your own is described in a YAML file that DATASETS.FILES lists (or --file, for the "
    "commands on data), or registered by --plugin MODULE; see docs/data.md",
)


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
    return [*(user_path(folder, DATASETS_VARIABLE) for folder in listed if folder), Path()]


def _check_has_colors(name: str, taxonomy: Taxonomy) -> None:
    if not taxonomy.label_colors:
        raise UserError(
            f"dataset '{name}': label_format is colors, but taxonomy '{taxonomy.name}' has no "
            f"label_colors; give the colors of its label files"
        )


def _check_own_labels(name: str, images: object, pairs: Sequence[tuple[Path, Path | None]]) -> None:
    """Raise UserError for two images with one label; a list may name an image several times."""
    owners: dict[Path, Path] = {}
    for image, label in pairs:
        if label is not None and owners.setdefault(label, image) != image:
            raise UserError(
                f"dataset '{name}': {owners[label]} and {image} would share the label {label}; "
                f"distinguish them in `labels` by {{1}}, {{2}}, …, what the wildcards of "
                f"images={images!r} stand for"
            )
