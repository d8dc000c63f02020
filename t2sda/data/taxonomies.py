"""Taxonomies: class names, colors, and the table from the ids in label files to train ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.errors import UserError
from t2sda.registry import nearest_first

MAX_CLASSES = IGNORE_INDEX
MAX_RAW_ID = (1 << 16) - 1

Color: TypeAlias = tuple[int, int, int]
"""(R, G, B), each 0 to 255."""


class LabelIdError(UserError):
    """A label file holds ids that its taxonomy does not know."""


@dataclass(frozen=True)
class ClassGroup:
    """Classes that count as one in a score, because a label set does not distinguish them."""

    name: str
    train_ids: tuple[int, ...]


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a label set.

    Args:
        name: how messages call it.
        class_names: one per train id, 2 to 255 of them.
        palette: one (R, G, B) per class, for images.
        train_ids: raw id in the label file -> train id or IGNORE_INDEX. Empty: files hold train
            ids already, with IGNORE_INDEX for ignored pixels. An id in neither is an error.
        label_colors: (R, G, B) in the label file -> train id or IGNORE_INDEX, for sets that give
            their labels as colors. Another color is an error.
        others: train id or IGNORE_INDEX of ids and colors that neither table has; None: an error.
        subsets: further scores by name, each over some train ids (SYNTHIA's 16 and 13 classes).
        things: names of the classes that are countable objects, not stuff like road and sky.
    Raises:
        ValueError: if the tables contradict each other.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[Color, ...]
    train_ids: Mapping[int, int] = field(default_factory=dict)
    label_colors: Mapping[Color, int] = field(default_factory=dict)
    others: int | None = None
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    things: tuple[str, ...] = field(default=(), compare=False)  # for training alone

    def __post_init__(self) -> None:
        if not 2 <= self.num_classes <= MAX_CLASSES:
            raise UserError(
                f"taxonomy '{self.name}': {self.num_classes} classes; 2 to {MAX_CLASSES} can be "
                f"distinct in 8-bit labels with {IGNORE_INDEX} for ignored pixels"
            )
        if len(self.palette) != self.num_classes:
            raise UserError(
                f"taxonomy '{self.name}': {len(self.palette)} colors for {self.num_classes} "
                f"classes; give one (R, G, B) per class"
            )
        if len(set(self.class_names)) != self.num_classes:
            raise UserError(f"taxonomy '{self.name}': two classes have the same name")
        self._check_raw_ids()
        self._check_targets("raw ids", self.train_ids)
        self._check_targets("label colors", self.label_colors)
        if self.others is not None:
            self._check_targets("others", {"others": self.others})
        self.ids_of(self.things)

    def _check_raw_ids(self) -> None:
        outside = [raw for raw in self.train_ids if not 0 <= raw <= MAX_RAW_ID]
        if outside:
            raise UserError(
                f"taxonomy '{self.name}': raw ids {outside[:5]} cannot be in a label file; ids are "
                f"0 to {MAX_RAW_ID}"
            )

    def _check_targets(self, what: str, table: Mapping[Any, int]) -> None:
        allowed = {*range(self.num_classes), IGNORE_INDEX}
        wrong = {raw: train for raw, train in table.items() if train not in allowed}
        if wrong:
            raise UserError(
                f"taxonomy '{self.name}': {what} map to train ids that do not exist: {wrong}; "
                f"use 0 to {self.num_classes - 1}, or {IGNORE_INDEX} for ignored"
            )

    def ids_of(self, class_names: Sequence[str]) -> tuple[int, ...]:
        """Train ids of classes by name; raises UserError for a name that is none."""
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown:
            known = ", ".join(nearest_first(unknown[0], list(self.class_names)))
            raise UserError(
                f"taxonomy '{self.name}' has no class {', '.join(map(repr, unknown))}; known, "
                f"nearest first: {known}"
            )
        return tuple(self.class_names.index(name) for name in class_names)

    @property
    def num_classes(self) -> int:
        """Number of train ids."""
        return len(self.class_names)

    @cached_property
    def _table(self) -> np.ndarray:
        """(65536,) int16: train id of every raw id, `_unlisted` where it is in no table."""
        mapping = self.train_ids or {
            **{index: index for index in range(self.num_classes)},
            IGNORE_INDEX: IGNORE_INDEX,
        }
        table = np.full(1 << 16, self._unlisted, dtype=np.int16)
        table[list(mapping)] = list(mapping.values())
        return table

    def to_train_ids(self, raw_label: np.ndarray) -> np.ndarray:
        """Raw label (H, W) uint8 or uint16, or colors (H, W, 3) -> train ids (H, W) uint8.

        Raises:
            LabelIdError: if the label holds ids or colors that the taxonomy does not know.
        """
        train_label = self._looked_up(raw_label)
        if train_label.min() < 0:
            unknown = np.unique(raw_label[train_label < 0], axis=0).tolist()
            raise LabelIdError(self._unknown(unknown, of_colors=raw_label.ndim == 3))
        return train_label.astype(np.uint8)

    def _looked_up(self, raw_label: np.ndarray) -> np.ndarray:
        """(H, W) int16 train ids, -1 where unknown."""
        if raw_label.ndim == 2:
            return self._table[raw_label]
        keys, train_ids = self._color_table
        codes = _color_codes(raw_label)
        nearest = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
        return np.where(keys[nearest] == codes, train_ids[nearest], np.int16(self._unlisted))

    @property
    def _unlisted(self) -> int:
        """What an id or color in no table becomes; -1: it is unknown."""
        return -1 if self.others is None else self.others

    @cached_property
    def _color_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted codes of the known colors, and their train ids."""
        codes = _color_codes(np.array(list(self.label_colors), dtype=np.uint8))
        order = np.argsort(codes)
        return codes[order], np.array(list(self.label_colors.values()), dtype=np.int16)[order]

    def _unknown(self, unknown: list[Any], *, of_colors: bool) -> str:
        what, table = ("colors", "label_colors") if of_colors else ("ids", "train_ids")
        known: list[Any] = sorted(self.label_colors if of_colors else self.train_ids)
        shown = _shortened(known) or f"0 to {self.num_classes - 1} and {IGNORE_INDEX} for ignored"
        return (
            f"label {what} {_shortened(unknown)} are unknown to taxonomy '{self.name}' "
            f"(known: {shown}); map them to a class or to {IGNORE_INDEX} in its {table}, or say "
            f"what all others are (`others: ignored` in a dataset's file)"
        )


def _color_codes(colors: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (...) int32, one number a color."""
    wide = colors.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _shortened(ids: list[Any], most: int = 12) -> str:
    more = f", … ({len(ids)} in all)" if len(ids) > most else ""
    return ", ".join(map(str, ids[:most])) + more


_CITYSCAPES_CLASSES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

CITYSCAPES_19 = Taxonomy(
    name="cityscapes_19",
    class_names=tuple(_CITYSCAPES_CLASSES),
    palette=tuple(_CITYSCAPES_CLASSES.values()),
    subsets={
        # Terrain, truck and train never occur in SYNTHIA (16); wall, fence and pole are further
        # left out in the 13-class score.
        "mIoU16": (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
        "mIoU13": (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
    },
    things=(
        *("traffic light", "traffic sign", "person", "rider", "car"),
        *("truck", "bus", "train", "motorcycle", "bicycle"),
    ),
)
"""The 19 evaluated classes of Cityscapes, labels stored as train ids."""

STREET_GROUPS_11 = (
    ClassGroup("road", (0,)),
    ClassGroup("sidewalk", (1,)),
    ClassGroup("building", (2, 3)),
    ClassGroup("fence", (4,)),
    ClassGroup("pole", (5,)),
    ClassGroup("sign", (6, 7)),
    ClassGroup("vegetation", (8, 9)),
    ClassGroup("sky", (10,)),
    ClassGroup("person", (11,)),
    ClassGroup("car", (13, 14, 15, 16)),
    ClassGroup("bicyclist", (12, 17, 18)),
)
"""What CamVid's 11 classes and Cityscapes' 19 can both be merged into."""
