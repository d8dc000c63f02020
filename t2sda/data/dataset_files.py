"""Datasets given as YAML files: `DATASETS.FILES`, and what such a file may hold."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from t2sda.config.errors import shown
from t2sda.config.yaml_text import Tree, read_section
from t2sda.data.catalog import DATASETS, DatasetSpec, OpensDataset, register_dataset
from t2sda.data.label_tables import TAXONOMIES
from t2sda.data.relabelled import RelabelledSpec, labels_folder
from t2sda.data.taxonomies import CITYSCAPES_19, MAX_CLASSES, ClassGroup, Color, Taxonomy
from t2sda.errors import UserError
from t2sda.registry import nearest_first
from t2sda.structures import IGNORE_INDEX

REQUIRED = ("name", "root", "images")
OPTIONAL = (
    *("labels", "stems", "splits", "classes", "taxonomy", "ids", "palette", "ignored"),
    *("label_format", "groups", "things", "subsets", "class_pixels", "packed_size"),
)
RELABELLED = ("name", "images_of", "labels")
"""All that is needed of a set with another one's images; only classes may be added."""
OWN_CLASSES = ("ids", "palette", "ignored", "things", "subsets")
"""Keys that say more about `classes`."""
SPLIT = "{split}"


def register_dataset_files(paths: Iterable[str]) -> None:
    """Register the datasets of every file; one that is registered already as it is stays.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it cannot be used, or a name is taken by another dataset.
    """
    for path in paths:
        for spec in read_dataset_file(Path(path)):
            if spec.name not in DATASETS:
                register_dataset(spec)
            elif DATASETS.get(spec.name) != spec:
                raise UserError(
                    f"{path}: a dataset called '{spec.name}' is registered already, "
                    f"{DATASETS.get(spec.name).location}; give this one another name"
                )


def read_dataset_file(path: Path) -> Sequence[OpensDataset]:
    """The dataset of a YAML file, or one for each of its splits, called NAME_SPLIT.

    A relative root is also looked for beside the file, and there first.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it cannot be used; the message names file, line and remedy.
    """
    hint = "a pattern that begins with * or { needs quotes"
    reader = _Reader(path, read_section(path, "dataset file", REQUIRED, hint))
    try:
        return [reader.relabelled()] if reader.is_relabelled else reader.specs()
    except UserError as error:  # a taxonomy or a spec does not know what file it is made of
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None


class _Reader:
    """One file's keys, checked and turned into specs."""

    def __init__(self, path: Path, tree: Tree) -> None:
        self.path = path
        self.tree = tree
        self.is_relabelled = "images_of" in tree
        required: tuple[str, ...] = RELABELLED if self.is_relabelled else REQUIRED
        optional = (*OWN_CLASSES, "classes", "taxonomy") if self.is_relabelled else OPTIONAL
        for key in tree:
            if key not in (*required, *optional):
                near = nearest_first(key, [*required, *optional])[0]
                raise self._error(key, f"unknown key; nearest known: {near}")
        for key in required:
            if key not in tree:
                raise UserError(f"{path}: `{key}` is missing; a dataset file needs it")

    def specs(self) -> list[DatasetSpec]:
        """One dataset, or one a split."""
        if "splits" not in self.tree:
            return [self._spec(None)]
        if not any(SPLIT in str(self._value(key)) for key in ("images", "stems")):
            raise self._error("splits", f"neither `images` nor `stems` has {SPLIT}")
        return [self._spec(split) for split in self._texts("splits", self._value("splits"))]

    def relabelled(self) -> RelabelledSpec:
        """Images of another dataset, with labels of a folder beside the file."""
        folder = labels_folder(self._text("labels"), self.path.parent)
        return RelabelledSpec(self._text("name"), self._text("images_of"), folder, self._taxonomy())

    def _spec(self, split: str | None) -> DatasetSpec:
        """The dataset; of a split, {split} is replaced by it."""

        def pattern(key: str) -> str:
            text = self._text(key)
            return text.replace(SPLIT, split) if split is not None else text

        taxonomy = self._taxonomy()
        return DatasetSpec(
            name=self._text("name") + (f"_{split}" if split is not None else ""),
            root=self._text("root"),
            images=self._images(split),
            labels=pattern("labels") if "labels" in self.tree else None,
            taxonomy=taxonomy,
            stems=pattern("stems") if "stems" in self.tree else None,
            class_groups=self._groups(taxonomy),
            label_format=self._label_format(),
            beside=str(self.path.parent.absolute()),
            class_pixels=pattern("class_pixels") if "class_pixels" in self.tree else None,
            packed_size=self._size("packed_size") if "packed_size" in self.tree else None,
        )

    def _images(self, split: str | None) -> str | tuple[str, ...]:
        """A folder or pattern, or a list of them."""
        value = self._value("images")
        patterns = self._texts("images", value) if isinstance(value, list) else [value]
        if not all(isinstance(pattern, str) and pattern for pattern in patterns):
            raise self._error("images", f"found {shown(value)}; must be text, or a list of it")
        if split is not None:
            patterns = [pattern.replace(SPLIT, split) for pattern in patterns]
        return tuple(patterns) if isinstance(value, list) else patterns[0]

    def _taxonomy(self) -> Taxonomy:
        """A shipped one by its name, or the file's own classes."""
        if "taxonomy" in self.tree:
            own = [key for key in (*OWN_CLASSES, "classes") if key in self.tree]
            if own:
                raise self._error(own[0], "has no effect beside `taxonomy`; delete one of them")
            name = self._text("taxonomy")
            if name not in TAXONOMIES:
                near = ", ".join(nearest_first(name, list(TAXONOMIES)))
                raise self._error("taxonomy", f"no taxonomy '{name}'; known, nearest first: {near}")
            return TAXONOMIES[name]
        if "classes" not in self.tree:
            if "labels" in self.tree:
                raise UserError(f"{self.path}: `labels` without `classes` (or `taxonomy`)")
            return CITYSCAPES_19  # of an unlabelled set nothing but images is read
        names = tuple(self._texts("classes", self._value("classes")))
        if not 2 <= len(names) <= MAX_CLASSES:
            raise self._error(
                "classes", f"found {len(names)} classes; 2 to {MAX_CLASSES} are possible"
            )
        palette = self._palette(names)
        in_colors = self._label_format() == "colors"
        if in_colors and "ids" in self.tree:
            raise self._error("ids", "has no effect with label_format colors; use `palette`")
        if in_colors and "palette" not in self.tree:
            raise UserError(
                f"{self.path}: label_format is colors, but there is no `palette`: give the color "
                f"of every class, {{{names[0]}: [R, G, B], ...}}"
            )
        return Taxonomy(
            name=self._text("name"),
            class_names=names,
            palette=palette,
            train_ids={} if in_colors else self._train_ids(names),
            label_colors=self._label_colors(palette) if in_colors else {},
            subsets=self._subsets(names),
            things=tuple(self._class_list("things", names, self._value("things", []))),
        )

    def _train_ids(self, names: tuple[str, ...]) -> dict[int, int]:
        """Of `ids` and `ignored`; without `ids` the files hold 0, 1, 2, … in the order of names."""
        if "ids" not in self.tree and "ignored" not in self.tree:
            return {}
        if "ids" not in self.tree:
            table = {index: index for index in range(len(names))}
            table[IGNORE_INDEX] = IGNORE_INDEX
        else:
            table = {}
            per_class = self._per_class("ids", names, self._ids)
            for train_id, ids in enumerate(per_class):
                for raw in ids:
                    if raw in table:
                        raise self._error(
                            "ids",
                            f"{raw} stands for both '{names[table[raw]]}' and '{names[train_id]}'; "
                            f"an id belongs to one class",
                        )
                    table[raw] = train_id
        for raw in self._ids("ignored", self._value("ignored", [])):
            if table.get(raw, IGNORE_INDEX) != IGNORE_INDEX:
                raise self._error(
                    "ignored", f"{raw} stands for '{names[table[raw]]}' and is ignored; choose one"
                )
            table[raw] = IGNORE_INDEX
        return table

    def _label_colors(self, palette: tuple[Color, ...]) -> dict[Color, int]:
        table: dict[Color, int] = {}
        for train_id, color in enumerate(palette):
            if color in table:
                raise self._error("palette", f"{list(color)} stands for two classes")
            table[color] = train_id
        for value in self._list("ignored", self._value("ignored", [])):
            color = self._color("ignored", value)
            if color in table and table[color] != IGNORE_INDEX:
                raise self._error("ignored", f"{list(color)} is the color of a class")
            table[color] = IGNORE_INDEX
        return table

    def _palette(self, names: tuple[str, ...]) -> tuple[Color, ...]:
        """The file's colors, by class or in order; well apart ones where it gives none."""
        if "palette" not in self.tree:
            return distinct_colors(len(names))
        value = self._value("palette")
        if isinstance(value, dict):
            return tuple(self._per_class("palette", names, self._color))
        return tuple(self._color("palette", item) for item in self._list("palette", value))

    def _groups(self, taxonomy: Taxonomy) -> tuple[ClassGroup, ...]:
        """`groups`: name to class names; every class is in exactly one."""
        if "groups" not in self.tree:
            return ()
        groups, names = [], taxonomy.class_names
        for name, members in self._section("groups").items():
            wanted = self._class_list("groups", names, members)
            groups.append(ClassGroup(name, tuple(names.index(member) for member in wanted)))
        counted = [train_id for group in groups for train_id in group.train_ids]
        wrong = [name for index, name in enumerate(names) if counted.count(index) != 1]
        if wrong:
            raise self._error("groups", f"'{wrong[0]}' must be in exactly one group")
        return tuple(groups)

    def _subsets(self, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        """`subsets`: name of a score to class names."""
        section = self._section("subsets") if "subsets" in self.tree else {}
        return {
            name: tuple(map(names.index, self._class_list("subsets", names, members)))
            for name, members in section.items()
        }

    def _class_list(self, key: str, names: tuple[str, ...], value: Any) -> list[str]:
        """A list of class names."""
        wanted = self._texts(key, value)
        unknown = [name for name in wanted if name not in names]
        if unknown:
            near = nearest_first(unknown[0], list(names))[0]
            raise self._error(key, f"no class '{unknown[0]}'; nearest: {near}")
        return wanted

    def _per_class(
        self, key: str, names: tuple[str, ...], read: Callable[[str, Any], Any]
    ) -> list[Any]:
        """A section with one value for every class, in the order of the classes."""
        section = self._section(key)
        unknown = [name for name in section if name not in names]
        if unknown:
            near = nearest_first(unknown[0], list(names))[0]
            raise self._error(key, f"no class '{unknown[0]}'; nearest: {near}")
        lacking = [name for name in names if name not in section]
        if lacking:
            raise self._error(key, f"nothing for class '{lacking[0]}'")
        return [read(key, section[name]) for name in names]

    def _section(self, key: str) -> dict[str, Any]:
        value = self._value(key)
        if not isinstance(value, dict):
            raise self._error(key, f"found {shown(value)}; give a line `name: value` for each")
        return {name: entry.value for name, entry in value.items()}

    def _label_format(self) -> str:
        return self._text("label_format") if "label_format" in self.tree else "ids"

    def _text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str) or not value or "\0" in value:
            raise self._error(key, f"found {shown(value)}; must be text")
        return value

    def _texts(self, key: str, value: Any) -> list[str]:
        texts = self._list(key, value)
        wrong = [text for text in texts if not isinstance(text, str)]
        if wrong:
            raise self._error(key, f"found {shown(wrong[0])}; must be text: write it in quotes")
        (text, count), *_ = Counter(texts).most_common(1) or [("", 0)]
        if count > 1:
            raise self._error(key, f"{shown(text)} is there twice")
        return texts

    def _ids(self, key: str, value: Any) -> list[int]:
        ids = value if isinstance(value, list) else [value]
        if not all(type(item) is int for item in ids):
            raise self._error(key, f"found {shown(value)}; must be an id or a list of ids")
        return ids

    def _color(self, key: str, value: Any) -> Color:
        numbers = value if isinstance(value, list) else []
        if len(numbers) != 3 or not all(type(n) is int and 0 <= n <= 255 for n in numbers):
            raise self._error(key, f"found {shown(value)}; a color is [R, G, B], each 0 to 255")
        return numbers[0], numbers[1], numbers[2]

    def _size(self, key: str) -> tuple[int, int]:
        value = self._value(key)
        sides = value if isinstance(value, list) else []
        if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
            raise self._error(key, f"found {shown(value)}; a size is [height, width] in pixels")
        return sides[0], sides[1]

    def _list(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self._error(key, f"found {shown(value)}; must be a list")
        return value

    def _value(self, key: str, default: Any = None) -> Any:
        return self.tree[key].value if key in self.tree else default

    def _error(self, key: str, what: str) -> UserError:
        return UserError(f"{self.tree[key].where}: {key}: {what}")


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Distinct colors: hues by the golden ratio, in three shades."""
    colors = []
    for index in range(count):
        hue = (index * 0.618034) % 1.0
        saturation, value = ((0.75, 0.9), (0.55, 0.65), (0.9, 0.55))[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colors)
