"""Annotations written as label files of train ids, lists of images, and a dataset's YAML file."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image

from t2sda.constants import IGNORE_INDEX
from t2sda.data.conversion.annotations import AnnotatedImage, Annotations
from t2sda.data.dataset_files import read_dataset_file
from t2sda.data.datasets import check_name
from t2sda.data.parallel import Progress, mapped, unseen
from t2sda.data.taxonomies import MAX_CLASSES
from t2sda.errors import MissingFileError, UserError
from t2sda.files import atomic_write, is_regular_file, make_writable_dir
from t2sda.images import read_header
from t2sda.images.files import check_pixels
from t2sda.images.finding import IMAGE_SUFFIXES

DESCRIPTION_NAME = "dataset.yaml"
IGNORED_LABEL = "__ignore__"
"""LabelMe's name for what does not count."""
_UNDRAWABLE = (
    *(ValueError, TypeError, OSError, SyntaxError, OverflowError),
    Image.DecompressionBombError,
)
"""What shapes that make no sense are refused with, by us or by Pillow."""
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that is uploaded."""


@dataclass(frozen=True)
class Classes:
    """What labels become.

    Attributes:
        names: in the order of their train ids.
        background: train id of pixels that no shape covers; IGNORE_INDEX: they do not count.
        taxonomy: what a YAML file calls `names`; None: it lists them.
    """

    names: tuple[str, ...]
    background: int
    taxonomy: str | None = None

    def id_of(self, label: str) -> int:
        """Train id, IGNORE_INDEX of a label that is no class."""
        return self.names.index(label) if label in self.names else IGNORE_INDEX


def chosen_classes(
    found: Annotations, names: Sequence[str], taxonomy: str | None, background: str | None
) -> Classes:
    """The classes asked for, else those that the file lists, else all labels in it by name.

    Args:
        found: what was read.
        names: classes in order; empty: not asked for.
        taxonomy: name of the label set that `names` are of.
        background: class of pixels that no shape covers; it comes first where it is no class yet.
    Raises:
        UserError: if there are too few or too many, or none of them has a shape.
    """
    labels = found.labels
    order = list(names or found.class_names or sorted(labels))
    order = [name for name in dict.fromkeys(order) if name != IGNORED_LABEL]
    if background is not None and background not in order:
        if taxonomy is not None:
            raise UserError(f"--background {background}: no class of --taxonomy {taxonomy}")
        order.insert(0, background)
    if not labels.keys() & set(order):
        listed = ", ".join(sorted(labels)[:10]) or "none"
        raise UserError(f"no shape of a class to write; the labels of the shapes are: {listed}")
    if not 2 <= len(order) <= MAX_CLASSES:
        raise UserError(
            f"found {len(order)} classes, {', '.join(order[:5])}; 2 to {MAX_CLASSES} are "
            f"taken: add --background NAME for what no shape covers, or choose with --classes"
        )
    train_id = IGNORE_INDEX if background is None else order.index(background)
    return Classes(tuple(order), train_id, taxonomy)


def write_dataset(
    found: Annotations,
    classes: Classes,
    images_dir: Path,
    output: Path,
    name: str,
    progress: Progress = unseen,
) -> list[AnnotatedImage]:
    """Write `labels/`, `stems.txt` (`SPLIT.txt` for each split) and `dataset.yaml` into `output`.

    Images stay where they are. One without any shape is left out, unless there is a background.

    Returns:
        The images that are in the set.
    Raises:
        UserError: if an image is missing or has another size, before anything is written; if
            `output` is in use or cannot be written to.
    """
    check_name(name)
    for option, folder in (("--images", images_dir), ("--output", output)):
        if re.search("[{}]", str(folder.resolve())):
            raise UserError(f"{option} {folder}: braces stand for other things in patterns; rename")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: not empty; choose another folder, or remove it")
    images = [image for image in found.images if image.shapes or classes.background != IGNORE_INDEX]
    if not images:
        raise UserError("no image has a shape; add --background NAME, or annotate one")
    writer = _Writer(images, _find_images(images, images_dir), classes, images_dir, output)
    for _ in mapped(writer.check, len(images), "looking at images", progress):
        pass
    make_writable_dir(output / "labels", "--output")
    try:
        for _ in mapped(writer, len(images), "drawing labels", progress):
            pass
        writer.describe(name)
        for spec in read_dataset_file(output / DESCRIPTION_NAME):
            spec.open()
    except BaseException:  # a folder with some labels would be taken for a set
        shutil.rmtree(output, ignore_errors=True)
        raise
    return images


class _Writer:
    """Writes the label of one image, called with its index; goes to other processes."""

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        paths: Sequence[Path],
        classes: Classes,
        images_dir: Path,
        output: Path,
    ) -> None:
        self.images = images
        self.paths = paths
        self.classes = classes
        self.images_dir = images_dir
        self.output = output
        self.stems = [path.relative_to(images_dir).as_posix() for path in paths]

    def check(self, index: int) -> None:
        """Raise UserError for an image that is not as the annotations have it."""
        path, size = self.paths[index], self.images[index].size
        if (stem := self.stems[index]) != stem.strip() or "\n" in stem:
            raise UserError(f"{path!r}: a list has one name a line; rename the file")
        check_pixels(size, path)
        seen = read_header(path).size
        if seen != size:
            raise UserError(
                f"{path}: is {seen[0]}x{seen[1]} (height x width), but was annotated at "
                f"{size[0]}x{size[1]}; give the images that were annotated"
            )

    def __call__(self, index: int) -> None:
        """Raises UserError for a shape that cannot be drawn."""
        label = drawn_label(self.images[index], self.classes)
        content = cv2.imencode(".png", label)[1].tobytes()
        atomic_write(self.output / "labels" / f"{self.stems[index]}.png", content)

    def describe(self, name: str) -> None:
        """Write the lists, then what names them."""
        splits = list(dict.fromkeys(image.split for image in self.images if image.split))
        for split in splits or [""]:
            lines = [
                stem
                for image, stem in zip(self.images, self.stems, strict=True)
                if image.split == split
            ]
            list_path = self.output / f"{split or 'stems'}.txt"
            atomic_write(list_path, "".join(f"{line}\n" for line in lines))
        common = Path(os.path.commonpath([self.images_dir.resolve(), self.output.resolve()]))

        def below(folder: Path) -> str:
            return folder.resolve().relative_to(common).as_posix()

        description: dict[str, Any] = {
            "name": name,
            "root": os.path.relpath(common, self.output.resolve()),
            "images": str(PurePosixPath(below(self.images_dir)) / "{stem}"),
            "labels": str(PurePosixPath(below(self.output)) / "labels/{stem}.png"),
            "stems": str(
                PurePosixPath(below(self.output)) / ("{split}.txt" if splits else "stems.txt")
            ),
        }
        if splits:
            description["splits"] = splits
        if self.classes.taxonomy is not None:
            description["taxonomy"] = self.classes.taxonomy
        else:
            description["classes"] = list(self.classes.names)
        text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
        atomic_write(self.output / DESCRIPTION_NAME, text)


def drawn_label(image: AnnotatedImage, classes: Classes) -> np.ndarray:
    """(H, W) uint8 train ids; raises UserError for a shape that cannot be drawn."""
    label = np.full(image.size, classes.background, dtype=np.uint8)
    for index, shape in enumerate(image.shapes):
        try:
            label[shape.region.mask(image.size)] = classes.id_of(shape.label)
        except _UNDRAWABLE as error:
            raise UserError(
                f"{image.name}: shape {index}, '{shape.label}', cannot be drawn ({error}); remove "
                f"or correct it, and export again"
            ) from None
    return label


def _find_images(images: Iterable[AnnotatedImage], folder: Path) -> list[Path]:
    """The file of each, below `folder`, as it is named, else by its last name alone.

    Raises:
        MissingFileError: naming the first that is not there.
        UserError: if two images of one name could be meant, or one is annotated twice.
    """
    by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            by_name.setdefault(path.name, []).append(path)
            by_name.setdefault(path.stem, []).append(path)
    found = []
    for image in images:
        path = folder / image.name
        named = PurePosixPath(image.name)
        if named.is_absolute() or ".." in named.parts or not is_regular_file(path):
            path = _by_last_name(image.name, by_name, folder)
        found.append(path)
    twice = [path for path, count in Counter(found).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]}: annotated twice; remove one of the two, or its file")
    return found


def _by_last_name(name: str, by_name: dict[str, list[Path]], folder: Path) -> Path:
    last = PurePosixPath(name).name
    candidates = by_name.get(last) or by_name.get(_UPLOADED.sub("", last)) or []
    within = [path for path in candidates if path.with_suffix("") == folder / name]
    candidates = within or candidates
    if not candidates:
        raise MissingFileError(
            f"--images {folder}: holds no image '{name}', nor '{last}' in any folder; name the "
            f"folder with the images that were annotated"
        )
    if len(candidates) > 1:
        shown = " and ".join(str(path) for path in candidates[:2])
        raise UserError(f"'{name}' may be {shown}; name the folder of the right one with --images")
    return candidates[0]
