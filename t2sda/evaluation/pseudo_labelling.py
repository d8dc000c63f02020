"""Pseudo-labels of a whole dataset, image by image: `t2sda pseudo-label`.

The folder gets labels/ (PNG files of train ids, 255 where there is none), dataset.yaml, which makes
it a dataset, and pseudo_labels.json. A rule that needs thresholds looks at all images first and
keeps histograms of blocks of images in survey/, so that whoever is stopped goes on with the block,
and in labels/ with the image; neither depends on how many processes do it.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from t2sda.constants import IGNORE_INDEX
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.packing import DESCRIPTION_NAME, class_keys
from t2sda.data.parallel import Progress, unseen
from t2sda.data.relabelled import check_own_png_names, png_name
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import barrier, is_main, rank, sum_over_ranks, world_size
from t2sda.errors import UserError
from t2sda.evaluation.label_rules import RULES, ConfidenceHistogram, LabelRule, labels_above
from t2sda.evaluation.views import Views
from t2sda.files import (
    atomic_write,
    atomic_writer,
    json_text,
    only_writer,
    read_small_file,
    remove_partials,
)
from t2sda.images import read_label
from t2sda.inference.results import write_png

logger = logging.getLogger(__name__)

FORMAT = "t2sda pseudo-labels 1"
RECORD_NAME = "pseudo_labels.json"
PLAN_NAME = "plan.json"
BLOCK = 32
"""Images whose histogram is kept together."""


@dataclass(frozen=True)
class PseudoLabels:
    """What was made.

    Attributes:
        folder: of all.
        name: of the dataset.
        class_pixels: labelled pixels by class.
        pixels: all, labelled or not.
    """

    folder: Path
    name: str
    class_pixels: Mapping[str, int]
    pixels: int

    @property
    def labelled_share(self) -> float:
        """Of all pixels."""
        return sum(self.class_pixels.values()) / self.pixels


def label_dataset(
    views: Views,
    taxonomy: Taxonomy,
    dataset: SegmentationDataset,
    rule: LabelRule,
    folder: Path,
    origin: Mapping[str, Any],
    progress: Progress = unseen,
) -> PseudoLabels:
    """Label a dataset into a folder, or go on with it; every rank takes its share.

    Args:
        views: of the network, with confidence.
        taxonomy: of the network.
        dataset: labelled or not; its labels are not looked at.
        rule: which pixels get a label.
        folder: a new one, or one in which the same was begun.
        origin: where the network comes from; kept, and compared when it goes on.
        progress: wraps the indices of images.
    Raises:
        UserError: if the folder holds something else or is in use, or no pixel gets a label.
    """
    check_own_png_names(dataset, "--output")
    plan = {
        "format": FORMAT,
        "rule": next(name for name, kind in RULES.items() if type(rule) is kind),
        **asdict(rule),  # type: ignore[call-overload]
        "dataset": dataset.fingerprint(),
        "protocol": str(views.protocol),
        **origin,
    }
    with only_writer(folder, "--output") if is_main() else nullcontext():
        if is_main():
            _begin(folder, plan)
        barrier()
        labeller = _Labeller(views, taxonomy, dataset, folder, progress)
        thresholds = rule.thresholds(labeller.survey(rule.surveys))
        counts = labeller.label(thresholds)
        found = _described(labeller, counts)
        if is_main():
            _finish(labeller, found, plan, thresholds)
        barrier()
    return found


class _Labeller:
    """The work of one rank."""

    def __init__(
        self,
        views: Views,
        taxonomy: Taxonomy,
        dataset: SegmentationDataset,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.views = views
        self.taxonomy = taxonomy
        self.dataset = dataset
        self.folder = folder
        self.progress = progress

    def survey(self, needed: bool) -> ConfidenceHistogram:
        """The confidences of all images, on every rank; empty if they are not needed."""
        total = ConfidenceHistogram.empty(self.taxonomy.num_classes)
        if not needed:
            return total
        num_blocks = -(-len(self.dataset) // BLOCK)
        blocks = range(rank(), num_blocks, world_size())
        for block in self.progress(blocks, f"confidences of {self.dataset.name}, by {BLOCK}"):
            total.counts += self._block(block)
        return ConfidenceHistogram(sum_over_ranks(torch.from_numpy(total.counts)).numpy())

    def _block(self, block: int) -> np.ndarray:
        """(C, BINS) of a block of images, kept in a file."""
        path = self.folder / "survey" / f"{block:06d}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return kept["counts"]
        seen = ConfidenceHistogram.empty(self.taxonomy.num_classes)
        for index in range(block * BLOCK, min((block + 1) * BLOCK, len(self.dataset))):
            seen.add(self._probabilities(index))
        path.parent.mkdir(exist_ok=True)
        with atomic_writer(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, counts=seen.counts)
        return seen.counts

    def label(self, thresholds: np.ndarray) -> np.ndarray:
        """Write what is not there yet; (C + 1,) pixels of all images by class, unlabelled last."""
        counts = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
        indices = range(rank(), len(self.dataset), world_size())
        for index in self.progress(indices, f"labels of {self.dataset.name}"):
            path = self.folder / "labels" / png_name(self.dataset.relative_name(index))
            labels = _kept(path)
            if labels is None:
                labels = labels_above(self._probabilities(index), thresholds)
                write_png(path, labels)
            counts += np.bincount(labels.ravel(), minlength=len(counts))
        own = np.append(counts[: self.taxonomy.num_classes], counts[IGNORE_INDEX])
        return sum_over_ranks(torch.from_numpy(own)).numpy()

    def _probabilities(self, index: int) -> np.ndarray:
        return self.views.probabilities(self.dataset.load_image(index))


def _kept(path: Path) -> np.ndarray | None:
    """A label that was written before."""
    try:
        return read_label(path)
    except (UserError, FileNotFoundError):
        return None


def _begin(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write down what is to be done; raises UserError if something else was begun there."""
    path = folder / PLAN_NAME
    text = json_text(plan, indent=1) + "\n"
    if path.is_file():
        before = json.loads(read_small_file(path))
        changed = [key for key in plan if before.get(key) != json.loads(text)[key]]
        if changed:
            raise UserError(
                f"--output {folder}: holds pseudo-labels of another {' and '.join(changed)}; "
                f"remove the folder, or choose another one"
            )
    elif any(item.name != ".t2sda.lock" for item in folder.iterdir()):
        raise UserError(f"--output {folder}: not empty; choose another folder, or remove it")
    remove_partials(item for item in folder.rglob("*") if item.is_dir())
    atomic_write(path, text)


def _described(labeller: _Labeller, counts: np.ndarray) -> PseudoLabels:
    """Checked for what nothing can be learnt from."""
    names = labeller.taxonomy.class_names
    found = PseudoLabels(
        labeller.folder,
        f"{labeller.dataset.name}_{labeller.folder.name}",
        dict(zip(names, map(int, counts[:-1]), strict=True)),
        int(counts.sum()),
    )
    labelled = [name for name, pixels in found.class_pixels.items() if pixels]
    if not labelled:
        raise UserError(
            f"the rule labels no pixel of the {len(labeller.dataset)} images of "
            f"'{labeller.dataset.name}'; lower --threshold, or raise --portion, in a new folder"
        )
    if len(labelled) == 1 and is_main():
        logger.warning(
            "all labels are of one class, '%s': whoever trains on them unlearns the others",
            labelled[0],
        )
    return found


def _finish(
    labeller: _Labeller, found: PseudoLabels, plan: Mapping[str, Any], thresholds: np.ndarray
) -> None:
    """Write what makes it a dataset, and what it was made by."""
    record = {
        **plan,
        "class_thresholds": dict(zip(found.class_pixels, map(float, thresholds), strict=True)),
        "class_pixels": found.class_pixels,
        "unlabelled_pixels": found.pixels - sum(found.class_pixels.values()),
    }
    atomic_write(found.folder / RECORD_NAME, json_text(record, indent=1) + "\n")
    description = {
        "name": found.name,
        "images_of": labeller.dataset.name,
        "labels": "labels",
        **class_keys(labeller.taxonomy),
    }
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    atomic_write(found.folder / DESCRIPTION_NAME, text)
    shutil.rmtree(found.folder / "survey", ignore_errors=True)
