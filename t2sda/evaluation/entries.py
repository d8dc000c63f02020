"""What `evaluation.json` holds: one entry a (model, dataset, protocol), written whole and strict.

entries = read_entries(Path("runs/first/evaluation.json"))
entries[0].scores.reported.mean_iou  # a share of 1, NaN where there is none
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2sda.errors import MissingFileError, UserError
from t2sda.files import atomic_write, check_writable_file, is_missing, json_text, read_small_file

FORMAT = "t2sda evaluation 1"
FILE_NAME = "evaluation.json"
"""In the folder of a run."""
MAX_BYTES = 1 << 30
"""Of a file: some thousand images take a megabyte."""

Counts = tuple[int, ...]
"""Pixels of every class."""


@dataclass(frozen=True)
class Protocol:
    """How images reach the network, as far as scores depend on it.

    Attributes:
        image_size: bound (height, width) that images are resized to fit; None: as they are.
        window: (height, width) of a sliding window; None: the whole image.
        step: (height, width) from one window to the next; None: there is no window.
        flip: whether the mirrored image counts as well.
        scales: factors of the image's size that count.
    """

    image_size: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    step: tuple[int, int] | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __str__(self) -> str:
        """For example: fit to 512x1024, whole."""
        size = f"fit to {_sides(self.image_size)}" if self.image_size else "as they are"
        seen = "whole"
        if self.window and self.step:
            seen = f"windows of {_sides(self.window)} every {_sides(self.step)}"
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        extra = [f"scales {scales}"] if self.scales != (1.0,) else []
        return ", ".join([size, seen, *extra, *(["flipped as well"] if self.flip else [])])


@dataclass(frozen=True)
class ClassScores:
    """IoUs by class name, NaN for a class that is neither there nor predicted, and their mean."""

    iou: dict[str, float]
    mean_iou: float


@dataclass(frozen=True)
class HeadTail:
    """Mean IoU of the head and of the tail classes of Table S5."""

    head: float
    tail: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error, and (pixels, mean confidence, accuracy) of every bin."""

    ece: float
    bins: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class ImageCounts:
    """Labelled pixels of one image.

    Attributes:
        name: its path below the dataset's root.
        true: by true class.
        predicted: by predicted class.
        right: by class, where both agree.
        group_right: by class group, where both are in it; empty: the dataset has no groups.
    """

    name: str
    true: Counts
    predicted: Counts
    right: Counts
    group_right: Counts = ()


@dataclass(frozen=True)
class Scores:
    """Scores on one dataset, as shares of 1; NaN for what has no pixels.

    Attributes:
        dataset: its name.
        num_images: how many were scored.
        protocol: how.
        classes: names of the C classes.
        confusion: C rows of C pixel counts; rows are the truth.
        iou, class_accuracy: by class.
        accuracy: share of labelled pixels that are right.
        mean_iou: over the classes that are there or predicted.
        subset_iou: mean IoU over the taxonomy's named subsets.
        groups: of the dataset's class groups; None: it has none.
        group_classes: train ids of every group; empty: it has none.
        head_tail: None for other classes than the 19 of Cityscapes.
        boundary_iou, calibration: None where they were not asked for.
        images: counts of every image, in the order of the dataset.
    """

    dataset: str
    num_images: int
    protocol: Protocol
    classes: tuple[str, ...]
    confusion: tuple[Counts, ...]
    iou: dict[str, float]
    class_accuracy: dict[str, float]
    accuracy: float
    mean_iou: float
    subset_iou: dict[str, float] = field(default_factory=dict)
    groups: ClassScores | None = None
    group_classes: dict[str, Counts] = field(default_factory=dict)
    head_tail: HeadTail | None = None
    boundary_iou: ClassScores | None = None
    calibration: Calibration | None = None
    images: tuple[ImageCounts, ...] = ()

    @property
    def reported(self) -> ClassScores:
        """The score that counts: of the class groups, where the dataset has some."""
        return self.groups or ClassScores(self.iou, self.mean_iou)

    @property
    def further_means(self) -> dict[str, float]:
        """Means over some of the classes, by name; none where class groups are what counts."""
        if self.groups is not None:
            return {}
        parts = self.head_tail
        ends = {} if parts is None else {"head classes": parts.head, "tail classes": parts.tail}
        return {**self.subset_iou, **ends}

    def as_metrics(self) -> dict[str, float]:
        """Flat names for the metric writers."""
        prefix = f"evaluation/{self.dataset}"
        subsets = {} if self.groups else self.subset_iou
        return {
            f"{prefix}/mIoU": self.reported.mean_iou,
            f"{prefix}/accuracy": self.accuracy,
            **{f"{prefix}/{name}": value for name, value in subsets.items()},
            **{f"{prefix}/IoU/{name}": value for name, value in self.reported.iou.items()},
        }


@dataclass(frozen=True)
class Entry:
    """Scores, and what was scored.

    Attributes:
        model: file name, relative to the folder of the JSON where it lies there.
        digest: sha256:… of the file, or of all its files.
        iteration, branch: of the weights, where the file says so.
        runtime: what ran it.
        date: when, ISO 8601 with the time zone.
        scores: on one dataset.
    """

    model: str
    digest: str
    iteration: int | None
    branch: str | None
    runtime: str
    date: str
    scores: Scores

    @property
    def key(self) -> tuple[str, str | None, str, Protocol]:
        """An entry replaces an older one of the same key."""
        return self.digest, self.branch, self.scores.dataset, self.scores.protocol


def read_entries(path: Path) -> list[Entry]:
    """The entries of a file, in the order in which they were written.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is none of ours, or damaged.
    """
    text = read_small_file(path, MAX_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"no JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a file of scores (no '{FORMAT}' mark); move it away, and write it anew "
            f"with `t2sda evaluate`"
        )
    if not isinstance(content.get("entries"), list):
        raise _damaged(path, "`entries` is no list")
    return [_read(item, number, path) for number, item in enumerate(content["entries"])]


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Write a file; `path` is the old one or the whole new one.

    Raises:
        UserError: if it cannot be written.
    """
    content = {"format": FORMAT, "entries": [as_json(entry) for entry in entries]}
    atomic_write(path, json_text(content) + "\n")


def add_entries(path: Path, new: Sequence[Entry]) -> None:
    """Add entries to a file, in place of older ones of the same key; it is made where missing.

    Processes that add to one file wait for each other.

    Raises:
        UserError: if it is damaged, or cannot be written.
    """
    keys = {entry.key for entry in new}
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        kept = [] if is_missing(path) else read_entries(path)
        write_entries(path, [*(entry for entry in kept if entry.key not in keys), *new])


def check_can_add(path: Path, setting: str) -> None:
    """Find out before the work whether `add_entries` will do; raises UserError if not."""
    check_writable_file(path, setting)
    with contextlib.suppress(MissingFileError):
        read_entries(path)


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry as plain values, as the file holds it."""
    values = dataclasses.asdict(entry)
    scores = values.pop("scores")
    return values | scores


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(item: Any, number: int, path: Path) -> Entry:
    try:
        entry = _entry(item)
        _check_counts(entry.scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        named = item.get("dataset") if isinstance(item, dict) else None
        where = f"entry {number}" + (f" ({named})" if isinstance(named, str) else "")
        what = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) else error
        raise _damaged(path, f"{where}: {what}") from None
    return entry


def _entry(item: Mapping[str, Any]) -> Entry:
    return Entry(
        model=_text(item["model"]),
        digest=_text(item["digest"]),
        iteration=None if item["iteration"] is None else _count(item["iteration"]),
        branch=None if item["branch"] is None else _text(item["branch"]),
        runtime=_text(item["runtime"]),
        date=_text(item["date"]),
        scores=_scores(item),
    )


def _scores(item: Mapping[str, Any]) -> Scores:
    groups, boundary, calibration = (
        item[name] for name in ("groups", "boundary_iou", "calibration")
    )
    head_tail = item["head_tail"]
    return Scores(
        dataset=_text(item["dataset"]),
        num_images=_count(item["num_images"]),
        protocol=_protocol(item["protocol"]),
        classes=tuple(_text(name) for name in _list(item["classes"])),
        confusion=tuple(_counts(row) for row in _list(item["confusion"])),
        iou=_shares(item["iou"]),
        class_accuracy=_shares(item["class_accuracy"]),
        accuracy=_share(item["accuracy"]),
        mean_iou=_share(item["mean_iou"]),
        subset_iou=_shares(item["subset_iou"]),
        groups=groups and ClassScores(_shares(groups["iou"]), _share(groups["mean_iou"])),
        group_classes={_text(k): _counts(v) for k, v in item["group_classes"].items()},
        head_tail=head_tail and HeadTail(_share(head_tail["head"]), _share(head_tail["tail"])),
        boundary_iou=boundary
        and ClassScores(_shares(boundary["iou"]), _share(boundary["mean_iou"])),
        calibration=calibration
        and Calibration(
            _share(calibration["ece"]),
            tuple((_count(n), _share(c), _share(a)) for n, c, a in _list(calibration["bins"])),
        ),
        images=tuple(_image(image) for image in _list(item["images"])),
    )


def _protocol(item: Mapping[str, Any]) -> Protocol:
    return Protocol(
        image_size=_size(item["image_size"]),
        window=_size(item["window"]),
        step=_size(item["step"]),
        flip=_flag(item["flip"]),
        scales=tuple(_factor(scale) for scale in _list(item["scales"])),
    )


def _image(item: Mapping[str, Any]) -> ImageCounts:
    names = ("true", "predicted", "right", "group_right")
    return ImageCounts(_text(item["name"]), *(_counts(item[name]) for name in names))


def _check_counts(scores: Scores) -> None:
    """Raise ValueError unless classes, confusion and images fit together."""
    num_classes = len(scores.classes)
    if any(len(row) != num_classes for row in (scores.confusion, *scores.confusion)):
        raise ValueError(f"`confusion` is not {num_classes} x {num_classes}")
    for name, by_class in (("iou", scores.iou), ("class_accuracy", scores.class_accuracy)):
        if tuple(by_class) != scores.classes:
            raise ValueError(f"`{name}` has other classes than `classes`")
    if len(scores.images) != scores.num_images:
        raise ValueError(f"{len(scores.images)} in `images`, but `num_images` {scores.num_images}")
    totals = {
        "true": [sum(row) for row in scores.confusion],
        "predicted": [sum(column) for column in zip(*scores.confusion, strict=True)],
        "right": [row[index] for index, row in enumerate(scores.confusion)],
    }
    for name, total in totals.items():
        rows = [getattr(image, name) for image in scores.images]
        if [sum(column) for column in zip(*rows, strict=True)] != total:
            raise ValueError(f"`{name}` of the images does not add up to `confusion`")
    _check_groups(scores)


def _check_groups(scores: Scores) -> None:
    names = tuple(scores.groups.iou) if scores.groups else ()
    if tuple(scores.group_classes) != names:
        raise ValueError("`group_classes` are not those of `groups`")
    if any(len(image.group_right) != len(names) for image in scores.images):
        raise ValueError("`group_right` of an image is not that of `groups`")


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: damaged: {what}; remove it, and score again with `t2sda evaluate`")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is neither true nor false")
    return value


def _factor(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= 1000:
        raise TypeError(f"{value!r:.80} is no factor of a size")
    return float(value)


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is no list")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r:.80} is no count")
    return value


def _counts(value: Any) -> Counts:
    return tuple(_count(item) for item in _list(value))


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    height, width = _counts(value)
    return height, width


def _share(value: Any) -> float:
    """A number from 0 to 1; NaN for null."""
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise TypeError(f"{value!r:.80} is no share of 1")
    return float(value)


def _shares(value: Mapping[str, Any]) -> dict[str, float]:
    return {_text(name): _share(share) for name, share in value.items()}
