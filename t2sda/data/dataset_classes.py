"""The classes that a dataset's YAML file describes, and what stands for them in its labels."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from t2sda.constants import IGNORE_INDEX
from t2sda.data.dataset_keys import DatasetKeys
from t2sda.data.label_tables import TAXONOMIES
from t2sda.data.taxonomies import CITYSCAPES_19, MAX_CLASSES, Color, Taxonomy
from t2sda.errors import UserError
from t2sda.registry import nearest_first

CLASS_KEYS = (
    *("classes", "taxonomy", "ids", "colors", "palette", "ignored", "others", "things", "subsets"),
)
"""Keys that this module reads."""
OF_OWN_CLASSES = ("classes", "palette", "things", "subsets")
"""What a taxonomy that is named says itself."""
OF_LABELS = ("ids", "colors", "ignored", "others")
"""What stands for which class in the label files: also beside a taxonomy, in place of its own."""
IGNORED = "ignored"
COLORS = "colors"
"""The label format, and the key with the colors of every class."""

Raw = TypeVar("Raw", int, Color)


def taxonomy_of(keys: DatasetKeys, label_format: str) -> Taxonomy:
    """A shipped taxonomy, perhaps with the file's own ids or colors, or the file's own classes.

    Raises:
        UserError: if keys contradict each other or the label format; it names file and line.
    """
    base = _named(keys) if "taxonomy" in keys else None
    if base is None and "classes" not in keys:
        if "labels" in keys:
            raise UserError(f"{keys.path}: `labels` without `classes` (or `taxonomy`)")
        return CITYSCAPES_19  # of an unlabelled set nothing but images is read
    for key, other in (("ids", COLORS), (COLORS, "ids")):
        if key in keys and (label_format == COLORS) != (key == COLORS):
            effect = "has no effect with" if key == "ids" else "has no effect without"
            raise keys.error(key, f"{effect} label_format colors; use `{other}`")
    if base is not None and not any(key in keys for key in OF_LABELS):
        return base
    reader = _Classes(keys, base)
    return reader.of_colors() if label_format == COLORS else reader.of_ids()


def _named(keys: DatasetKeys) -> Taxonomy:
    own = [key for key in OF_OWN_CLASSES if key in keys]
    if own:
        raise keys.error(own[0], "has no effect beside `taxonomy`; delete one of them")
    name = keys.text("taxonomy")
    if name not in TAXONOMIES:
        near = ", ".join(nearest_first(name, list(TAXONOMIES)))
        raise keys.error("taxonomy", f"no taxonomy '{name}'; known, nearest first: {near}")
    return TAXONOMIES[name]


@dataclass(frozen=True)
class _Classes:
    """Tables of one file; `base` is the taxonomy that it names."""

    keys: DatasetKeys
    base: Taxonomy | None

    def of_ids(self) -> Taxonomy:
        """Labels hold numbers."""
        taxonomy = self._plain()
        if not any(key in self.keys for key in ("ids", "ignored")):
            table = taxonomy.train_ids
        elif "ids" in self.keys:
            names = taxonomy.class_names
            per_class = self.keys.per_class("ids", names, self.keys.ids, self._absent)
            table = self._table("ids", per_class, names)
        else:
            in_order = {index: index for index in range(taxonomy.num_classes)}
            table = dict(taxonomy.train_ids) or {**in_order, IGNORE_INDEX: IGNORE_INDEX}
        ignored = self.keys.ids(IGNORED, self.keys.value(IGNORED, []))
        return replace(taxonomy, train_ids=self._with_ignored(table, ignored, taxonomy.class_names))

    def of_colors(self) -> Taxonomy:
        """Labels hold colors: those of `colors`, else of `palette`, else of the taxonomy."""
        taxonomy = self._plain()
        names = taxonomy.class_names
        if COLORS in self.keys:
            table = self._table(COLORS, self._colors(names), names)
        elif "palette" in self.keys:
            table = self._table("palette", [[color] for color in taxonomy.palette], names)
        else:
            table = dict(taxonomy.label_colors)
        if not table:
            raise UserError(
                f"{self.keys.path}: label_format is colors without `colors`, and there is no "
                f"`palette`: give the color of every class, {{{names[0]}: [R, G, B], ...}}"
            )
        ignored = self.keys.items(IGNORED, self.keys.value(IGNORED, []))
        colors = [self.keys.color(IGNORED, value) for value in ignored]
        return replace(taxonomy, label_colors=self._with_ignored(table, colors, names))

    @property
    def _absent(self) -> list[int] | None:
        """Of a taxonomy's classes the labels may lack some; of the file's own none."""
        return None if self.base is None else []

    def _plain(self) -> Taxonomy:
        """Names and what is drawn; `others`, which every table has."""
        keys, base = self.keys, self.base
        if base is not None:
            return replace(base, name=keys.text("name"), others=self._others(base))
        names = tuple(keys.texts("classes", keys.value("classes")))
        if not 2 <= len(names) <= MAX_CLASSES:
            raise keys.error(
                "classes", f"found {len(names)} classes; 2 to {MAX_CLASSES} are possible"
            )
        plain = Taxonomy(
            name=keys.text("name"),
            class_names=names,
            palette=self._palette(names),
            subsets=self._subsets(names),
            things=tuple(keys.class_list("things", names, keys.value("things", []))),
        )
        return replace(plain, others=self._others(plain))

    def _others(self, taxonomy: Taxonomy) -> int | None:
        """`others`: what ids and colors become that stand nowhere; None: an error."""
        if "others" not in self.keys:
            return taxonomy.others
        name = self.keys.text("others")
        if name == IGNORED:
            return IGNORE_INDEX
        self.keys.check_class("others", (*taxonomy.class_names, IGNORED), name)
        return taxonomy.class_names.index(name)

    def _colors(self, names: tuple[str, ...]) -> list[list[Color]]:
        return self.keys.per_class(COLORS, names, self.keys.colors, self._absent)

    def _palette(self, names: tuple[str, ...]) -> tuple[Color, ...]:
        """The file's colors, by class or in order; else the first of `colors`, else distinct."""
        keys = self.keys
        if "palette" in keys:
            value = keys.value("palette")
            if isinstance(value, dict):
                return tuple(keys.per_class("palette", names, keys.color))
            return tuple(keys.color("palette", item) for item in keys.items("palette", value))
        if COLORS in keys:
            return tuple(colors[0] for colors in self._colors(names))
        return distinct_colors(len(names))

    def _subsets(self, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        """`subsets`: name of a score to class names."""
        section = self.keys.section("subsets") if "subsets" in self.keys else {}
        return {
            name: tuple(map(names.index, self.keys.class_list("subsets", names, members)))
            for name, members in section.items()
        }

    def _table(
        self, key: str, per_class: Iterable[list[Raw]], names: tuple[str, ...]
    ) -> dict[Raw, int]:
        """Raw value -> train id; raises UserError for one that stands for two classes."""
        table: dict[Raw, int] = {}
        for train_id, values in enumerate(per_class):
            for raw in values:
                if raw in table:
                    both = f"'{names[table[raw]]}' and '{names[train_id]}'"
                    if isinstance(raw, tuple):
                        what = f"{list(raw)} stands for two classes, {both}"
                    else:
                        what = f"{raw} stands for both {both}; an id belongs to one class"
                    raise self.keys.error(key, what)
                table[raw] = train_id
        return table

    def _with_ignored(
        self, table: Mapping[Raw, int], ignored: Iterable[Raw], names: tuple[str, ...]
    ) -> dict[Raw, int]:
        whole = dict(table)
        for raw in ignored:
            if whole.get(raw, IGNORE_INDEX) != IGNORE_INDEX:
                shown = list(raw) if isinstance(raw, tuple) else raw
                raise self.keys.error(
                    IGNORED, f"{shown} stands for '{names[whole[raw]]}' and is ignored; choose one"
                )
            whole[raw] = IGNORE_INDEX
        return whole


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Distinct colors: hues by the golden ratio, in three shades."""
    colors = []
    for index in range(count):
        hue = (index * 0.618034) % 1.0
        saturation, value = ((0.75, 0.9), (0.55, 0.65), (0.9, 0.55))[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colors)
