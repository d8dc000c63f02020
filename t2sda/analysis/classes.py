"""The classes of an analysis: those of the model, or the groups that a label set merges them to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2sda.constants import IGNORE_INDEX
from t2sda.data.taxonomies import ClassGroup, Color, Taxonomy


@dataclass(frozen=True)
class Classes:
    """Names and colors, and which of them a train id belongs to.

    Args:
        names: C of them.
        colors: one for each, (R, G, B); a group has that of its first member.
        class_of: (256,) uint8, class of every train id; IGNORE_INDEX stays what it is.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    class_of: np.ndarray

    @classmethod
    def of(cls, taxonomy: Taxonomy, groups: Sequence[ClassGroup] = ()) -> Classes:
        """Those of a taxonomy, or the groups that they are merged to before scoring."""
        groups = groups or [
            ClassGroup(name, (index,)) for index, name in enumerate(taxonomy.class_names)
        ]
        class_of = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, dtype=np.uint8)
        for index, group in enumerate(groups):
            class_of[list(group.train_ids)] = index
        return cls(
            tuple(group.name for group in groups),
            tuple(taxonomy.palette[group.train_ids[0]] for group in groups),
            class_of,
        )

    def __len__(self) -> int:
        return len(self.names)

    def merged(self, labels: np.ndarray) -> np.ndarray:
        """Train ids -> classes, both uint8 of any shape."""
        return np.take(self.class_of, labels)
