"""Images with their truth and every run's prediction, small enough to travel inside a page."""

from __future__ import annotations

import base64
import io
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image

from t2sda.analysis.classes import Classes
from t2sda.constants import IGNORE_INDEX
from t2sda.data.catalog import open_dataset
from t2sda.data.datasets import Sample, SegmentationDataset
from t2sda.data.taxonomies import Taxonomy
from t2sda.data.transforms import resize_label
from t2sda.errors import MissingFileError, UserError
from t2sda.evaluation.entries import Entry
from t2sda.evaluation.views import Views
from t2sda.files import is_missing
from t2sda.registry import UnknownNameError
from t2sda.report.read import Group, Run
from t2sda.runtime.identity import model_digest
from t2sda.runtime.loading import load_model

MAX_SIDE = 640
"""Pixels of the longer side of an image in the page."""
JPEG_QUALITY = 82
RIGHT, WRONG, UNLABELLED = range(3)
_MISTAKES_PALETTE = (0, 0, 0, 213, 40, 30, 128, 128, 128)
_MISTAKES_ALPHA = bytes((0, 255, 110))


@dataclass(frozen=True)
class Choice:
    """An image of a dataset, and why it is shown."""

    dataset: str
    name: str
    reason: str


@dataclass
class Shown:
    """An image in the page; all of it are data URIs.

    Attributes:
        choice: which one.
        image: JPEG.
        truth: PNG in the colors of the classes.
        predictions: by the name of a run, PNG.
        mistakes: by the name of a run, PNG; transparent where the prediction is right, half
            transparent where nothing is labelled.
        scores: by the name of a run, mean IoU of the image, a share of 1.
    """

    choice: Choice
    image: str
    truth: str
    predictions: dict[str, str] = field(default_factory=dict)
    mistakes: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """What there is to see, and what there is not.

    Attributes:
        images: in the order of the page.
        legend: color of every class that is in a label or prediction, as #rrggbb.
        left_out: why something is not shown.
    """

    images: Sequence[Shown] = ()
    legend: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()


def build_gallery(groups: Sequence[Group], num_images: int, device: str = "auto") -> Gallery:
    """Choose images by the runs' scores, and let every run label them.

    Args:
        groups: of the report.
        num_images: of each dataset, at most.
        device: as for `load_model`.
    Raises:
        UserError: if a checkpoint or an image is damaged, or a prediction has another size than
            its label. What is not there any more is left out, and said.
    """
    runs = [run for group in groups for run in group.runs]
    found: list[_Found] = []
    left_out: list[str] = []
    for name in dict.fromkeys(dataset for run in runs for dataset in run.scores):
        try:
            found += _found(groups, name, num_images)
        except (MissingFileError, UnknownNameError) as error:
            left_out.append(str(error))
    for run in runs:
        try:
            _add_predictions_(found, run, device)
        except MissingFileError as error:
            left_out.append(str(error))
    legend = {name: color for item in found for name, color in item.legend.items()}
    return Gallery([item.shown for item in found], legend, left_out)


def choose(groups: Sequence[Group], dataset: str, count: int) -> list[Choice]:
    """In turn the worst, the best and the image on which the groups differ most.

    Args:
        groups: of the report.
        dataset: whose images.
        count: how many at most.
    """
    by_group = [
        [score.image_scores() for score in group.scores(dataset) if score.entry] for group in groups
    ]
    by_group = [tables for tables in by_group if tables]
    names = _in_all([table for tables in by_group for table in tables])
    means = {
        name: [statistics.fmean(table[name] for table in tables) for tables in by_group]
        for name in names
    }
    rankings = {
        "worst": sorted(names, key=lambda name: statistics.fmean(means[name])),
        "best": sorted(names, key=lambda name: -statistics.fmean(means[name])),
    }
    if len(by_group) > 1:
        rankings["largest difference"] = sorted(
            names, key=lambda name: min(means[name]) - max(means[name])
        )
    chosen: dict[str, str] = {}
    for reason in itertools.islice(itertools.cycle(rankings), min(count, len(names))):
        chosen[next(name for name in rankings[reason] if name not in chosen)] = reason
    order = list(rankings)
    return [
        Choice(dataset, name, reason)
        for name, reason in sorted(chosen.items(), key=lambda item: order.index(item[1]))
    ]


@dataclass
class _Found:
    """An image at its own size, while runs label it."""

    shown: Shown
    sample: Sample
    taxonomy: Taxonomy
    classes: Classes
    """Those that are scored: mistaking a member of a class group for another is no mistake."""
    legend: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """In the page."""
        return size_within(self.sample.image.shape[:2])

    def note(self, labels: np.ndarray) -> None:
        """Add the classes of a labelling to the legend."""
        for index in np.unique(labels[labels < self.taxonomy.num_classes]):
            color = "#{:02x}{:02x}{:02x}".format(*self.taxonomy.palette[index])
            self.legend[self.taxonomy.class_names[index]] = color


def _found(groups: Sequence[Group], name: str, num_images: int) -> list[_Found]:
    """The images to show of a dataset.

    Raises:
        MissingFileError: if they, their labels or their counts are not there.
        UserError: if the dataset has other classes by now.
    """
    choices = choose(groups, name, num_images)
    if not choices:
        raise MissingFileError(
            f"{name}: the runs have no counts of single images; `t2sda evaluate` writes them"
        )
    dataset = open_dataset(name)
    if not dataset.labelled:
        raise MissingFileError(f"dataset '{name}' has no labels here")
    scores = [score for group in groups for score in group.scores(name)]
    for entry in [score.entry for score in scores if score.entry is not None]:
        if entry.scores.classes != dataset.taxonomy.class_names:
            raise UserError(
                f"dataset '{name}' has other classes than when it was scored; score the runs "
                f"again, or leave the images out with --no-gallery"
            )
    return [_opened(dataset, choice) for choice in choices]


def _opened(dataset: SegmentationDataset, choice: Choice) -> _Found:
    sample = dataset.load(index_of(dataset, choice.name))
    assert sample.label is not None
    size = size_within(sample.image.shape[:2])
    truth = labels_uri(sample.label, size, dataset.taxonomy)
    shown = Shown(choice, image_uri(sample.image, size), truth)
    classes = Classes.of(dataset.taxonomy, dataset.class_groups)
    found = _Found(shown, sample, dataset.taxonomy, classes)
    found.note(sample.label)
    return found


def _add_predictions_(found: Sequence[_Found], run: Run, device: str) -> None:
    """Let the network that was scored label the images.

    Raises:
        MissingFileError: if its file is gone, or another one by now.
    """
    views: dict[Any, Views] = {}
    for item in found:
        choice, label = item.shown.choice, item.sample.label
        score = run.scores.get(choice.dataset)
        if score is None or score.entry is None:
            continue
        key = (score.entry.digest, score.entry.branch, score.entry.scores.protocol)
        if key not in views:
            views[key] = _views(run, score.entry, device)
        labels = views[key](item.sample.image).labels
        assert label is not None
        check_size(labels, label, run, choice)
        item.note(labels)
        item.shown.predictions[run.name] = labels_uri(labels, item.size, item.taxonomy)
        item.shown.mistakes[run.name] = mistakes_uri(labels, label, item.size, item.classes)
        item.shown.scores[run.name] = score.image_scores()[choice.name]


def _views(run: Run, entry: Entry, device: str) -> Views:
    """The network as it was scored.

    Raises:
        MissingFileError: if its file is gone, or another one by now.
    """
    path = run.folder / entry.model
    again = "score the run again with `t2sda evaluate`"
    if is_missing(path):
        raise MissingFileError(f"{run.name}: {path.name}, which was scored, is gone; {again}")
    if f"sha256:{model_digest(path)}" != entry.digest:
        raise MissingFileError(f"{run.name}: {path.name} is not what was scored; {again}")
    branch = entry.branch or "student"
    return Views(load_model(path, device=device, branch=branch), entry.scores.protocol)


def check_size(labels: np.ndarray, truth: np.ndarray, run: Run, choice: Choice) -> None:
    """Raise UserError unless a prediction lies on its label."""
    if labels.shape != truth.shape:
        predicted, true = ("x".join(map(str, array.shape)) for array in (labels, truth))
        raise UserError(
            f"{run.folder}: its prediction of {choice.name} ({choice.dataset}) is {predicted}, the "
            f"label is {true}; a predictor must give labels of the image's own size"
        )


def index_of(dataset: SegmentationDataset, name: str) -> int:
    """Which sample an entry of evaluation.json calls `name`.

    Raises:
        MissingFileError: if the dataset has none of that name any more.
    """
    for index in range(len(dataset)):
        if dataset.relative_name(index) == name:
            return index
    raise MissingFileError(
        f"dataset '{dataset.name}': no image {name} any more; score the runs again"
    )


def size_within(size: Sequence[int], bound: int = MAX_SIDE) -> tuple[int, int]:
    """(height, width) with sides of at most `bound`, the ratio kept."""
    scale = min(1.0, bound / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def image_uri(image: np.ndarray, size: tuple[int, int]) -> str:
    """(H, W, 3) uint8 RGB as a JPEG of `size`."""
    if image.shape[:2] != size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return _uri(Image.fromarray(image), "JPEG", quality=JPEG_QUALITY, optimize=True)


def labels_uri(labels: np.ndarray, size: tuple[int, int], taxonomy: Taxonomy) -> str:
    """(H, W) train ids as a PNG of `size` with a palette; what is no class is transparent."""
    palette = np.zeros((IGNORE_INDEX + 1, 3), dtype=np.uint8)
    palette[: taxonomy.num_classes] = taxonomy.palette
    image = Image.fromarray(resize_label(labels, size))
    image.putpalette(palette.tobytes())
    opaque = bytes(255 if index < taxonomy.num_classes else 0 for index in range(256))
    return _uri(image, "PNG", optimize=True, transparency=opaque)


def mistakes_uri(
    labels: np.ndarray, truth: np.ndarray, size: tuple[int, int], classes: Classes
) -> str:
    """RIGHT, WRONG or UNLABELLED at every pixel, as a PNG of `size`."""
    kinds = np.where(classes.merged(labels) == classes.merged(truth), RIGHT, WRONG)
    kinds[truth == IGNORE_INDEX] = UNLABELLED
    image = Image.fromarray(resize_label(kinds.astype(np.uint8), size))
    image.putpalette(_MISTAKES_PALETTE)
    return _uri(image, "PNG", optimize=True, transparency=_MISTAKES_ALPHA)


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{content}"


def _in_all(tables: Sequence[Mapping[str, float]]) -> list[str]:
    if not tables:
        return []
    return [name for name in tables[0] if all(name in table for table in tables)]
