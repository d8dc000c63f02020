"""What is wrong with a dataset: every file looked at once, every finding with its remedy."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from t2sda.data.catalog import DatasetSpec, OpensDataset
from t2sda.data.datasets import FileDataset, SegmentationDataset, check_label_fits
from t2sda.data.manifest import MANIFEST_NAME, differences
from t2sda.data.parallel import Progress, mapped, unseen
from t2sda.data.taxonomies import ClassGroup
from t2sda.errors import MissingFileError, UserError
from t2sda.files import is_missing
from t2sda.images import Header, read_header, read_image
from t2sda.images.files import content_of
from t2sda.images.finding import find_files
from t2sda.images.orientation import UPRIGHT
from t2sda.structures import IGNORE_INDEX

MANY_IGNORED = 0.5
"""Share of ignored pixels that is worth a word."""


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        kind: in few words; findings of one kind are shown together.
        text: which file, what is wrong, what to do.
        fatal: whether training would stop at it or learn something wrong.
    """

    kind: str
    text: str
    fatal: bool = True


@dataclass(frozen=True)
class Examination:
    """What one image and its label turned out to be."""

    name: str
    image_size: tuple[int, int] | None
    """(height, width); None if it cannot be read."""
    pixels: np.ndarray | None
    """(C + 1,) pixels of every class, then ignored ones; None without a usable label."""
    digest: str
    """Of the image file's content, or of the pixels of what is no file."""
    findings: tuple[Finding, ...]


@dataclass
class DatasetReport:
    """Everything that was found out about a dataset.

    Attributes:
        dataset: what was looked at.
        examinations: one an image, in its order.
        findings: of the images, then of the whole set.
    """

    dataset: SegmentationDataset
    examinations: list[Examination]
    findings: list[Finding] = field(default_factory=list)

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """How many images have which (height, width)."""
        return Counter(item.image_size for item in self.examinations if item.image_size)

    @property
    def pixels(self) -> np.ndarray:
        """(N, C + 1) counts of the images with a usable label."""
        counts = [item.pixels for item in self.examinations if item.pixels is not None]
        return np.array(counts, dtype=np.int64).reshape(-1, self.dataset.taxonomy.num_classes + 1)

    @property
    def fatal(self) -> bool:
        """Whether training would go wrong."""
        return any(finding.fatal for finding in self.findings)


def check_dataset(
    dataset: SegmentationDataset,
    spec: OpensDataset | None = None,
    progress: Progress = unseen,
    others: Iterable[SegmentationDataset] = (),
) -> DatasetReport:
    """Look at every image and label of a dataset, on all cores.

    Args:
        dataset: opened.
        spec: what it was opened from, to find labels that belong to no image.
        progress: shows how far it is.
        others: datasets whose labels may lie in the same folder, such as further splits.
    """
    examine = partial(examine_sample, dataset)
    what = f"checking {dataset.name}"
    report = DatasetReport(dataset, list(mapped(examine, len(dataset), what, progress)))
    report.findings += [found for item in report.examinations for found in item.findings]
    report.findings += _duplicates(report.examinations)
    report.findings += _against_manifest(spec, progress)
    if dataset.labelled:
        known = {label for item in (dataset, *others) for label in _labels_of(item)}
        report.findings += [*_labels_without_image(spec, known), *_of_all_labels(report)]
    return report


def examine_sample(dataset: SegmentationDataset, index: int) -> Examination:
    """Look at one image and its label."""
    if isinstance(dataset, FileDataset):
        return _examine_files(dataset, *dataset.pairs[index])
    try:
        sample = dataset.load(index)
        pixels = dataset.class_pixels(index) if dataset.labelled else None
    except UserError as error:
        return Examination(f"{index}", None, None, "", (Finding("unreadable samples", str(error)),))
    digest = hashlib.blake2b(np.ascontiguousarray(sample.image).tobytes()).hexdigest()
    return Examination(sample.name, _size(sample.image), pixels, digest, ())


def digest_of_image(dataset: SegmentationDataset, index: int) -> str:
    """Hash of an image file's content, or of the pixels of what is no file; "" if it is missing."""
    if not isinstance(dataset, FileDataset):
        return examine_sample(dataset, index).digest
    return _digest_of_file(dataset.pairs[index][0])


def duplicates_across(
    reports: Iterable[DatasetReport], others: Iterable[SegmentationDataset], progress: Progress
) -> list[Finding]:
    """Images that are in several of the datasets, such as in training and evaluation.

    Args:
        reports: of the datasets that were checked.
        others: further datasets, of which only the images are looked at.
        progress: shows how far it is with `others`.
    """
    seen = {report.dataset.name: _digests(report.examinations) for report in reports}
    for other in others:
        what = f"comparing with {other.name}"
        digests = mapped(partial(digest_of_image, other), len(other), what, progress)
        seen[other.name] = {d: other.name_of(i) for i, d in enumerate(digests) if d}
    names = list(seen)
    return [
        Finding(
            "images in two splits",
            _in_both(first, seen[first][digest], second, seen[second][digest]),
            fatal=False,
        )
        for place, first in enumerate(names)
        for second in names[place + 1 :]
        for digest in seen[first].keys() & seen[second].keys()
    ]


def _in_both(first: str, name: str, second: str, other: str) -> str:
    if name == other or _is_one_file(name, other):
        return (
            f"{name} is in {first} and in {second}; leave it out of the pattern or list of one of "
            f"them, or scores will be too good"
        )
    return (
        f"{name} ({first}) and {other} ({second}) are the same image; remove it from one of them, "
        f"or scores will be too good"
    )


def _examine_files(dataset: FileDataset, image_path: Path, label_path: Path | None) -> Examination:
    findings: list[Finding] = []
    image = header = pixels = None
    try:
        image = read_image(image_path)
        header = read_header(image_path)
        findings += _notes_on(image_path, header, image)
        if (image == image[0, 0]).all():
            findings.append(
                Finding(
                    "images of one color",
                    f"{image_path}: every pixel is {image[0, 0].tolist()}; look at it, and leave "
                    f"it out if it is a failed recording",
                    fatal=False,
                )
            )
    except MissingFileError as error:
        findings.append(Finding("missing images", f"{error}; check list and folder"))
    except UserError as error:
        findings.append(Finding("unreadable images", str(error)))
    if label_path is not None:
        label_findings, pixels = _examine_label(dataset, image_path, label_path, header)
        findings += label_findings
    return Examination(
        str(image_path),
        None if image is None else _size(image),
        pixels,
        _digest_of_file(image_path),
        tuple(findings),
    )


def _notes_on(path: Path, header: Header, image: np.ndarray) -> list[Finding]:
    """What the reader did to an image that its owner may not expect."""
    notes = []
    if header.orientation != UPRIGHT:
        text = f"{path}: turned by its EXIF orientation {header.orientation}"
        notes.append(("images that are turned", f"{text}; its label must be upright, too"))
    if header.alpha:
        text = f"{path}: its transparency is dropped; look at the colors below it"
        notes.append(("images with transparency", text))
    if header.bits > 8:
        text = f"{path}: {header.bits} bits a channel become 8, and the brightest {image.max()}"
        notes.append(("images of more than 8 bits", f"{text} of 255; scale it if that is dark"))
    return [Finding(kind, text, fatal=False) for kind, text in notes]


def _examine_label(
    dataset: FileDataset, image_path: Path, label_path: Path, image: Header | None
) -> tuple[list[Finding], np.ndarray | None]:
    if is_missing(label_path):
        text = f"{image_path} has no label; expected {label_path}: add it, or remove the image"
        return [Finding("images without label", text)], None
    try:
        raw = dataset.label_reader(label_path)
    except UserError as error:
        return [Finding("unreadable labels", str(error))], None
    findings = []
    try:
        if image is not None:
            check_label_fits(image_path, image, label_path, raw.shape[:2])
    except UserError as error:
        findings.append(Finding("labels that do not fit their image", str(error)))
    try:
        label = dataset.taxonomy.to_train_ids(raw)
    except UserError as error:
        return [*findings, Finding("unknown ids", f"{label_path}: {error}")], None
    counts = np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)
    pixels = np.append(counts[: dataset.taxonomy.num_classes], counts[IGNORE_INDEX])
    if not pixels[:-1].any():
        text = f"{label_path}: all pixels are ignored; the image teaches nothing: leave it out"
        findings.append(Finding("labels without a class", text, fatal=False))
    return findings, pixels


def _of_all_labels(report: DatasetReport) -> list[Finding]:
    """What only the sum over all labels shows."""
    pixels, taxonomy, name = report.pixels, report.dataset.taxonomy, report.dataset.name
    totals = pixels.sum(axis=0)
    if not totals[:-1].any():
        text = f"{name}: no label has a pixel of any class; check `ids`, or the label folder"
        return [Finding("no classes at all", text)]
    findings = []
    groups = report.dataset.class_groups or [
        ClassGroup(class_name, (c,)) for c, class_name in enumerate(taxonomy.class_names)
    ]
    never = [group.name for group in groups if not totals[list(group.train_ids)].any()]
    if never:
        text = (
            f"{name}: {', '.join(never)}; nothing can be learnt about them: fine if the set is "
            f"known to lack them, else check the id table of '{taxonomy.name}'"
        )
        findings.append(Finding("classes that never occur", text, fatal=False))
    ignored = totals[-1] / totals.sum()
    if ignored > MANY_IGNORED:
        text = f"{name}: {100 * ignored:.0f} % of all pixels; check which ids are ignored"
        findings.append(Finding("many ignored pixels", text, fatal=False))
    return findings


def _labels_of(dataset: SegmentationDataset) -> set[Path]:
    if not isinstance(dataset, FileDataset):
        return set()
    return {label for _, label in dataset.pairs if label is not None}


def _labels_without_image(spec: OpensDataset | None, known: set[Path]) -> list[Finding]:
    """Label files that are not `known`; a list of stems leaves out files on purpose."""
    if not isinstance(spec, DatasetSpec) or spec.stems is not None or spec.labels is None:
        return []
    pattern = re.sub(r"\{\w+\}", "*", spec.labels)
    return [
        Finding(
            "labels without image",
            f"{path}: no image that matches {spec.images} belongs to it; add it, or remove the "
            f"label",
            fatal=False,
        )
        for path in find_files(spec.label_root(), [pattern]).files
        if path not in known
    ]


def _against_manifest(spec: OpensDataset | None, progress: Progress) -> list[Finding]:
    """Files that are not as they were packed, where the folder has a manifest."""
    if not isinstance(spec, DatasetSpec) or not (spec.find_root() / MANIFEST_NAME).is_file():
        return []
    remedies = {
        "missing": "copy it again, or pack the set again",
        "damaged": f"its content is not what {MANIFEST_NAME} says; copy it again, or pack again",
        "extra": f"{MANIFEST_NAME} does not know it, and it is not trained on; remove it",
    }
    return [
        Finding(f"{kind} files", f"{path}: {remedies[kind]}", fatal=kind != "extra")
        for path, kind in differences(spec.find_root(), progress)
    ]


def _duplicates(examinations: Iterable[Examination]) -> list[Finding]:
    """Images that are there twice within a dataset."""
    findings = []
    first: dict[str, str] = {}
    for item in examinations:
        if item.digest and item.digest in first:
            findings.append(_twice(item.name, first[item.digest]))
        first.setdefault(item.digest, item.name)
    return findings


def _twice(name: str, first: str) -> Finding:
    """Advice to remove a file only where another one holds the image."""
    if name == first:
        text = f"{name} is listed more than once; fine if it is to be drawn more often"
        return Finding("images that are listed twice", text, fatal=False)
    if _is_one_file(name, first):
        text = f"{name} and {first} are two names of one file; leave one name out"
        return Finding("images under two names", text, fatal=False)
    text = f"{name} is the same image as {first}; remove one"
    return Finding("images that are there twice", text, fatal=False)


def _is_one_file(name: str, other: str) -> bool:
    """By path: whoever deletes one of them has deleted both, or left a link to nothing."""
    try:
        return Path(name).samefile(other)
    except (OSError, ValueError):  # drawn scenes and packed samples have names that are no paths
        return False


def _digests(examinations: Iterable[Examination]) -> dict[str, str]:
    return {item.digest: item.name for item in examinations if item.digest}


def _digest_of_file(path: Path) -> str:
    try:
        return hashlib.blake2b(content_of(path)).hexdigest()
    except (UserError, MemoryError):  # reported when it is decoded
        return ""


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
