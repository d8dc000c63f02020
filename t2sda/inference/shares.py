"""What was seen where: a line for each finished image, and the sum of them as JSON.

The lines are what `--resume` goes by: one is written when all files of an image are there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.files import atomic_write, json_text, reason
from t2sda.inference.results import KINDS, result_paths
from t2sda.inference.video import VIDEO_KINDS, video_path

RECORD_NAME = "images.jsonl"
SHARES_NAME = "classes.json"
LEGEND_NAME = "legend.png"
SHARDS_NAME = "shards"
"""Folder of the records of shards, see `t2sda.inference.shards`."""

Stamp = list[str | int]
"""Which file it is, and its state."""


def stamp_of(path: Path) -> Stamp | None:
    """Which file it is, and its state: place, size, times of change; None if it has vanished.

    The second time is that of the file's entry: it changes when another file, of whatever age,
    takes the place.
    """
    try:
        found = path.stat()
        place = os.fsencode(path.resolve()).hex()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None
    return [place, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


class Record:
    """Finished images of an output folder.

    Args:
        folder: exists.
        settings: what results depend on, as JSON has it; a resumed run must have the same.
        resume: go on with the record that is there.
        num_classes: of the model.
        stamp: which file is at a path, and its state; None if that is not known.

    Raises:
        UserError: if the record that is there was made with other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        resume: bool,
        num_classes: int,
        stamp: Callable[[Path], Stamp | None] = stamp_of,
    ) -> None:
        self.path = folder / RECORD_NAME
        self._stamp = stamp
        self.num_classes = num_classes
        settings = json.loads(json.dumps(settings))  # tuples would not equal what is read back
        self.settings = settings
        lines = lines_of(self.path) if resume else []
        if lines and (changes := _changes(lines[0].get("settings"), settings)):
            raise UserError(
                f"--resume: results in {folder} were made with other settings: "
                f"{'; '.join(changes)}; choose another output folder, or leave out --resume"
            )
        images = [line for line in lines[1:] if len(line["pixels"]) == num_classes]
        self.finished: dict[str, list[int]] = {line["name"]: line["pixels"] for line in images}
        self._stamps = {line["name"]: line.get("stamp") for line in images}
        # Written anew: the last line of a killed run may be torn.
        kept = [{"settings": settings}, *images]
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def holds(self, name: str, source: Path) -> bool:
        """Whether an image is finished, and its file is still the one that was segmented."""
        stamp = self._stamp(source)
        return name in self.finished and stamp is not None and self._stamps[name] == stamp

    def add(self, name: str, counts: np.ndarray, source: Path) -> None:
        """Note an image whose files are all written; `counts` are pixels of every class."""
        self.finished[name] = counts.tolist()
        self._stamps[name] = self._stamp(source)
        line = json.dumps(
            {"name": name, "pixels": self.finished[name], "stamp": self._stamps[name]}
        )
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None

    def counts(self, names: Sequence[str]) -> np.ndarray:
        """Pixels of every class, (C,), over the images called `names`."""
        rows = [self.finished[name] for name in names if name in self.finished]
        return np.array(rows, dtype=np.int64).reshape(-1, self.num_classes).sum(axis=0)

    def write_shares(self, path: Path, names: Sequence[str], taxonomy: Taxonomy) -> None:
        """The legend as JSON: name, color and share of every class, over all and by image."""
        total = self.counts(names)
        images = {name: self.finished[name] for name in names if name in self.finished}
        content = {
            "taxonomy": taxonomy.name,
            "classes": [
                {
                    "train_id": index,
                    "name": name,
                    "color": list(taxonomy.palette[index]),
                    "pixels": int(total[index]),
                    "share": _shares(total)[index],
                }
                for index, name in enumerate(taxonomy.class_names)
            ],
            "images": {
                name: {
                    taxonomy.class_names[index]: share
                    for index, share in enumerate(_shares(np.asarray(counts)))
                    if share > 0
                }
                for name, counts in images.items()
            },
        }
        atomic_write(path, json_text(content, indent=1) + "\n")


def results_below(folder: Path) -> set[Path]:
    """What runs that left a record in a folder may have written there."""
    records = [folder / RECORD_NAME, *folder.glob(f"{SHARDS_NAME}/*/{RECORD_NAME}")]
    lines = [line for record in records for line in lines_of(record)]
    targets = [folder / line["name"] for line in lines if "name" in line]
    return {
        *([folder / LEGEND_NAME] if lines else []),
        *(path for target in targets for path in result_paths(target, KINDS)),
        *(video_path(target, kind) for target in targets for kind in VIDEO_KINDS),
    }


def remove_summary(folder: Path) -> None:
    """Remove legend and shares of a run before; UserError if that is refused."""
    for path in (folder / LEGEND_NAME, folder / SHARES_NAME):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be replaced ({reason(error)})") from None


def _changes(old: Any, new: Mapping[str, Any]) -> list[str]:
    if not isinstance(old, dict):
        return ["none are noted"]
    return [
        f"{name} was {old.get(name)}, is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _shares(counts: np.ndarray) -> list[float]:
    return (counts / max(int(counts.sum()), 1)).round(6).tolist()


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a record; none where it is not there."""
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            break  # torn by a kill; what follows cannot be trusted either
        if not isinstance(values, dict) or (found and not _is_of_an_image(values)):
            break
        found.append(values)
    return found


def _is_of_an_image(line: Mapping[str, Any]) -> bool:
    name, pixels = line.get("name"), line.get("pixels")
    return (
        isinstance(name, str)
        and isinstance(pixels, list)
        and all(type(count) is int and 0 <= count < 1 << 63 for count in pixels)
    )
