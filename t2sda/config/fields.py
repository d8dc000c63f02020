"""One setting: its type, what it may be, and what it means."""

from __future__ import annotations

import builtins
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2sda.config.errors import shown
from t2sda.registry import Registry, nearest_first

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_IN_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
}


@dataclass(frozen=True)
class Field:
    """Declaration of one setting.

    Args:
        default: its value where nobody sets it; its type is the setting's type.
        doc: what it means, for the reference page.
        unit: unit of the value ("iterations", "pixels").
        choices: the allowed values; of a tuple, the allowed elements. A registry: its names, at
            any time.
        low: smallest allowed value (of every element of a tuple).
        high: largest allowed value (of every element of a tuple).
        exclusive_low: the value must be above `low`, not equal to it.
        optional: null is allowed.
        length: exact number of elements of a tuple.
        element: type of a tuple's elements, needed where the default has none to show it.
        one_or_several: a value alone stands for a tuple of one, and "" for an empty one.
        type: type of the value, needed where the default is None.

    Raises:
        ValueError: if the declaration contradicts itself, or the default breaks its rules.
    """

    default: Any
    doc: str
    unit: str = ""
    choices: Sequence[Any] | Registry[Any] | None = None
    low: float | None = None
    high: float | None = None
    exclusive_low: bool = False
    optional: bool = False
    length: int | None = None
    element: builtins.type | None = None
    one_or_several: bool = False
    type: builtins.type | None = None

    def __post_init__(self) -> None:
        if self.type is None:
            object.__setattr__(self, "type", self._type_of_default())
        if self.type is tuple and self.element is None:
            object.__setattr__(self, "element", self._element_of_default())
        self._refuse_contradictions()
        object.__setattr__(self, "default", self.convert(self.default))

    @property
    def scalar_type(self) -> builtins.type:
        """Type of the value, or of a tuple's elements: bool, int, float or str."""
        scalar = self.element if self.type is tuple else self.type
        assert scalar is not None
        return scalar

    @property
    def range_text(self) -> str:
        """The allowed range and unit: "> 0", "in [0, 1]", ">= 0 iterations"; "" where free."""
        if self.low is not None and self.high is not None:
            text = f"in {'(' if self.exclusive_low else '['}{self.low}, {self.high}]"
        elif self.low is not None:
            text = f"{'>' if self.exclusive_low else '>='} {self.low}"
        elif self.high is not None:
            text = f"<= {self.high}"
        else:
            return ""
        return f"{text} {self.unit}".rstrip()

    @property
    def type_text(self) -> str:
        """The type in words: "a number", "a list of 2 integers or null"."""
        text = one = _IN_WORDS[self.scalar_type]
        if self.type is tuple:
            count = "" if self.length is None else f" of length {self.length}"
            text = f"a list{count}, each element {text}"
        if self.one_or_several:
            text = f"{one}, or {text}"
        return f"{text}, or null" if self.optional else text

    def convert(self, value: Any) -> Any:
        """`value` as a value of this setting.

        Raises:
            ValueError: with what the value must be ("must be a number").
        """
        if value is None and self.optional:
            return None
        if self.type is not tuple:
            return self._convert_scalar(value)
        if self.one_or_several and not isinstance(value, (list, tuple)):
            return self._convert_one(value)
        if not isinstance(value, (list, tuple)) or self.length not in (None, len(value)):
            example = f", such as {list(self.default)}" if self.default else ""
            raise ValueError(f"must be {self.type_text}{example}")
        return self._convert_elements(value)

    def _convert_one(self, value: Any) -> tuple[Any, ...]:
        try:
            return () if value == "" else (self._convert_scalar(value),)
        except ValueError as error:
            alone = f"must be {_IN_WORDS[self.scalar_type]}"
            raise ValueError(str(error).replace(alone, f"must be {self.type_text}")) from None

    def _convert_elements(self, values: Sequence[Any]) -> tuple[Any, ...]:
        converted, problems = [], []
        for position, value in enumerate(values):
            try:
                converted.append(self._convert_scalar(value))
            except ValueError as error:
                problems.append(f"element {position} ({shown(value)}) {error}")
        if problems:
            raise ValueError(", ".join(problems))
        return tuple(converted)

    def _convert_scalar(self, value: Any) -> Any:
        converted = _as_type(value, self.scalar_type)
        if self.choices is not None and converted not in self.choices:
            known = [shown(choice) for choice in self.choices]
            advice = f". {self.choices.advice}" if isinstance(self.choices, Registry) else ""
            nearest = ", ".join(nearest_first(shown(converted), known))
            raise ValueError(f"must be one of {nearest}{advice}")
        too_low = self.low is not None and (
            converted <= self.low if self.exclusive_low else converted < self.low
        )
        if too_low or (self.high is not None and converted > self.high):
            raise ValueError(f"must be {self.range_text}")
        return converted

    def _type_of_default(self) -> builtins.type:
        if self.default is None:
            raise ValueError("a default of None does not show the type; give type=")
        return tuple if isinstance(self.default, list) else type(self.default)

    def _element_of_default(self) -> builtins.type:
        types = {type(value) for value in self.default or ()}
        if len(types) != 1:
            raise ValueError(f"default {self.default!r} does not show one element type; element=")
        return types.pop()

    def _refuse_contradictions(self) -> None:
        of_tuples = (self.length, self.element, self.one_or_several or None)
        if self.type is not tuple and of_tuples != (None, None, None):
            raise ValueError("length, element and one_or_several are for tuples")
        if self.scalar_type not in _IN_WORDS:
            raise ValueError(f"{self.scalar_type.__name__} is no type of a setting")
        limits = (self.low, self.high)
        if self.scalar_type not in (int, float) and limits != (None, None):
            raise ValueError(f"{self.scalar_type.__name__} has no range")
        if self.exclusive_low and self.low is None:
            raise ValueError("exclusive_low needs low")


def _as_type(value: Any, wanted: type) -> Any:
    """`value` where it is of the type; integers and text such as "6e-5" become floats."""
    if wanted is float:
        return _as_float(value)
    if type(value) is wanted:
        if wanted is str and "\0" in str(value):
            raise ValueError("must not hold a NUL character")
        return value
    advice = "; write it in quotes" if wanted is str and value is not None else ""
    raise ValueError(f"must be {_IN_WORDS[wanted]}{advice}")


def _as_float(value: Any) -> float:
    # YAML 1.1 wants a point and a signed exponent: it takes 6e-5 and 1.0e4 for text.
    is_text = isinstance(value, str) and _NUMBER.fullmatch(value.strip())
    if not is_text and type(value) not in (int, float):
        raise ValueError(f"must be {_IN_WORDS[float]}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def unpaired_sizes(sizes: Mapping[str, Sequence[int]]) -> list[str]:
    """What a rule says of sizes, by their keys, that are neither empty nor (height, width)."""
    return [
        f"{key}: {size} is not (height, width); give two numbers, or [] for none"
        for key, size in sizes.items()
        if len(size) not in (0, 2)
    ]
