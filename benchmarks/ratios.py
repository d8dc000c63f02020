"""What a benchmark measured, as lines of one table: a number, its target, whether it is met."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t2sda.files import atomic_write, json_text


@dataclass(frozen=True)
class Ratio:
    """A number with its target.

    Attributes:
        what: was measured.
        value: a ratio to the peer, unless `unit` says otherwise.
        detail: the figures behind it.
        at_least, at_most: the target; neither: there is none.
        unit: of the value; "x" for a ratio.
    """

    what: str
    value: float
    detail: str = ""
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"

    @property
    def target(self) -> str:
        """In words; a dash where there is none."""
        parts = [("≥", self.at_least), ("≤", self.at_most)]
        return " ".join(f"{sign} {value:g}" for sign, value in parts if value is not None) or "–"

    @property
    def met(self) -> bool | None:
        """None without a target."""
        if self.at_least is None and self.at_most is None:
            return None
        high_enough = self.at_least is None or self.value >= self.at_least
        return high_enough and (self.at_most is None or self.value <= self.at_most)


def add_ratios_argument(parser: argparse.ArgumentParser) -> None:
    """`--ratios FILE`."""
    parser.add_argument("--ratios", type=Path, metavar="FILE", help="write the ratios there, JSON")


def save_ratios(path: Path | None, ratios: Sequence[Ratio]) -> None:
    """Write them where `--ratios` was given."""
    if path is not None:
        atomic_write(path, json_text([dataclasses.asdict(each) for each in ratios], indent=1))


def read_ratios(path: Path) -> list[Ratio]:
    """What `save_ratios` wrote; a value that is NaN or infinite comes back as NaN."""
    found = [Ratio(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
    return [each if each.value is not None else replace(each, value=math.nan) for each in found]
