"""The keys of a dataset's YAML file, each read as what it must be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from t2sda.config.errors import shown
from t2sda.config.yaml_text import Tree
from t2sda.data.taxonomies import MAX_RAW_ID, Color
from t2sda.errors import UserError
from t2sda.registry import nearest_first

_RANGE = re.compile(r"(\d{1,9})\s*-\s*(\d{1,9})")


class DatasetKeys:
    """One file's keys; every method raises UserError with file, line and remedy."""

    def __init__(self, path: Path, tree: Tree) -> None:
        self.path = path
        self.tree = tree

    def __contains__(self, key: str) -> bool:
        return key in self.tree

    def value(self, key: str, default: Any = None) -> Any:
        """As YAML gives it."""
        return self.tree[key].value if key in self.tree else default

    def error(self, key: str, what: str) -> UserError:
        """What is wrong with a key's value."""
        return UserError(f"{self.tree[key].where}: {key}: {what}")

    def text(self, key: str) -> str:
        """Text that is not empty."""
        value = self.value(key)
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.error(key, f"found {shown(value)}; must be text")
        return value

    def texts(self, key: str, value: Any) -> list[str]:
        """A list of different texts."""
        texts = self.items(key, value)
        wrong = [text for text in texts if not isinstance(text, str)]
        if wrong:
            raise self.error(key, f"found {shown(wrong[0])}; must be text: write it in quotes")
        (text, count), *_ = Counter(texts).most_common(1) or [("", 0)]
        if count > 1:
            raise self.error(key, f"{shown(text)} is there twice")
        return texts

    def ids(self, key: str, value: Any) -> list[int]:
        """An id, a range such as 11-19 with both of its ends, or a list of either."""
        ids: list[int] = []
        for item in value if isinstance(value, list) else [value]:
            ids += self._ids_of(key, item)
            if len(ids) > MAX_RAW_ID + 1:
                raise self.error(key, f"more than the {MAX_RAW_ID + 1} ids that there are")
        return ids

    def _ids_of(self, key: str, item: Any) -> list[int]:
        if type(item) is int:
            return [item]
        found = _RANGE.fullmatch(item.strip()) if isinstance(item, str) else None
        if found is None:
            raise self.error(
                key,
                f"found {shown(item)}; must be an id or a list of ids, a range written as 11-19",
            )
        first, last = int(found[1]), int(found[2])
        if not first <= last <= MAX_RAW_ID:
            raise self.error(
                key, f"found {item}; a range is FIRST-LAST, its ids are 0 to {MAX_RAW_ID}"
            )
        return list(range(first, last + 1))

    def color(self, key: str, value: Any) -> Color:
        """[R, G, B]."""
        numbers = value if isinstance(value, list) else []
        if len(numbers) != 3 or not all(type(n) is int and 0 <= n <= 255 for n in numbers):
            raise self.error(key, f"found {shown(value)}; a color is [R, G, B], each 0 to 255")
        return numbers[0], numbers[1], numbers[2]

    def colors(self, key: str, value: Any) -> list[Color]:
        """[R, G, B], or a list of them."""
        several = isinstance(value, list) and any(isinstance(item, list) for item in value)
        return [self.color(key, item) for item in (value if several else [value])]

    def size(self, key: str) -> tuple[int, int]:
        """[height, width]."""
        value = self.value(key)
        sides = value if isinstance(value, list) else []
        if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
            raise self.error(key, f"found {shown(value)}; a size is [height, width] in pixels")
        return sides[0], sides[1]

    def items(self, key: str, value: Any) -> list[Any]:
        """A list."""
        if not isinstance(value, list):
            raise self.error(key, f"found {shown(value)}; must be a list")
        return value

    def section(self, key: str) -> dict[str, Any]:
        """A section's values by name."""
        value = self.value(key)
        if not isinstance(value, dict):
            raise self.error(key, f"found {shown(value)}; give a line `name: value` for each")
        return {name: entry.value for name, entry in value.items()}

    def class_list(self, key: str, names: tuple[str, ...], value: Any) -> list[str]:
        """A list of names of `names`."""
        wanted = self.texts(key, value)
        for name in wanted:
            self.check_class(key, names, name)
        return wanted

    def per_class(
        self,
        key: str,
        names: tuple[str, ...],
        read: Callable[[str, Any], Any],
        absent: Any = None,
    ) -> list[Any]:
        """A section with a value for every class, in the order of the classes.

        Args:
            key: of the section.
            names: of the classes.
            read: the value, from the key and what YAML gives.
            absent: the value of a class that the section leaves out; None: each must be there.
        """
        section = self.section(key)
        for name in section:
            self.check_class(key, names, name)
        lacking = [name for name in names if name not in section]
        if lacking and absent is None:
            raise self.error(key, f"nothing for class '{lacking[0]}'")
        return [read(key, section[name]) if name in section else absent for name in names]

    def check_class(self, key: str, names: tuple[str, ...], name: str) -> None:
        """Raise UserError for a name that is none of `names`."""
        if name not in names:
            near = nearest_first(name, list(names))[0]
            raise self.error(key, f"no class '{name}'; nearest: {near}")
