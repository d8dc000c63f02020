"""Scores of a predictor on a labelled dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field, unpaired_sizes
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import rank, world_size
from t2sda.errors import UserError
from t2sda.evaluation.entries import Protocol, Scores
from t2sda.evaluation.tally import Tally
from t2sda.evaluation.views import Views, protocol_for
from t2sda.registry import MODELS
from t2sda.runtime.predictor import Predictor

SCHEMA.declare(
    "EVALUATION",
    {
        "PERIOD": Field(
            4000,
            "iterations between evaluations, and one at the end; 0: never",
            unit="iterations",
            low=0,
        ),
        "DATASETS": Field((), "labelled datasets to score the student on", element=str),
        "IMAGE_SIZE": Field(
            (),
            "bound (height, width) that images are resized to fit before the network, ratio "
            "kept; logits are resized back. Empty: as they are",
            unit="pixels",
            low=1,
            element=int,
        ),
        "WINDOW": Field(
            (),
            "(height, width) of windows that images are scored by, after IMAGE_SIZE; logits are "
            "averaged where they overlap. `evaluate` does the same, `infer` with `--window` alone. "
            "Empty: the whole image",
            unit="pixels",
            low=1,
            element=int,
        ),
    },
)
SCHEMA.declare(
    "EVALUATION",
    {
        "STEP": Field(
            (),
            "(height, width) from one window to the next, the last of a row ends at the border; "
            "empty: two thirds of the window",
            unit="pixels",
            low=1,
            element=int,
        ),
    },
    when=lambda cfg: bool(cfg.EVALUATION.WINDOW),
    when_text="EVALUATION.WINDOW is set",
)


@SCHEMA.check
def sizes_are_pairs(cfg: CfgNode) -> list[str]:
    """All of them may be empty."""
    return unpaired_sizes(
        {
            "EVALUATION.IMAGE_SIZE": cfg.EVALUATION.IMAGE_SIZE,
            "EVALUATION.WINDOW": cfg.EVALUATION.WINDOW,
            "EVALUATION.STEP": cfg.EVALUATION.STEP,
        }
    )


@SCHEMA.check
def windows_cover_images(cfg: CfgNode) -> str | None:
    """No step is larger than the window; a model that slides by itself is not slid again."""
    window, step = cfg.EVALUATION.WINDOW, cfg.EVALUATION.STEP
    if window and MODELS.get(cfg.MODEL.NAME).slides_itself:
        return (
            f"EVALUATION.WINDOW: {list(window)}, but {cfg.MODEL.NAME} goes over images in windows "
            f"of its own; leave it empty"
        )
    if any(by > side for by, side in zip(step, window, strict=False)):
        return (
            f"EVALUATION.STEP: {list(step)} is larger than EVALUATION.WINDOW {list(window)}: "
            f"pixels between the windows would be left out; make it at most as large"
        )
    return None


Progress = Callable[[Sequence[int], str], Iterable[int]]


KeepLabels = Callable[[str, np.ndarray], None]
"""Takes an image's name below its dataset's root, and its predicted train ids (H, W) uint8."""


def evaluate(
    predictor: Predictor,
    dataset: SegmentationDataset,
    protocol: Protocol | None = None,
    *,
    boundary: bool = False,
    calibration: bool = False,
    keep: KeepLabels = lambda name, labels: None,
    progress: Progress = lambda indices, what: indices,
) -> Scores:
    """Score a predictor on a dataset, image by image; every rank takes its share of them.

    Scores are the same for any number of ranks, to the bit.

    Args:
        predictor: of any runtime.
        dataset: labelled with the model's classes.
        protocol: of `protocol_for`; None: as in the run's evaluations.
        boundary: whether boundary IoU is asked for.
        calibration: whether the expected calibration error is.
        keep: gets what is predicted, on the rank that predicts it.
        progress: wraps the indices, to show how far it is; also gets the dataset's name.
    Raises:
        UserError: if the dataset is unlabelled or labelled with other classes, or the model cannot
            do what is asked for.
    """
    check_classes(dataset, predictor.taxonomy)
    protocol = protocol or protocol_for(predictor)
    views = Views(predictor, protocol, with_confidence=calibration)
    tally = Tally(dataset, predictor.taxonomy, boundary=boundary, calibration=calibration)
    for index in progress(range(rank(), len(dataset), world_size()), dataset.name):
        sample = dataset.load(index)
        found = views(sample.image)
        tally.add(sample, found)
        keep(dataset.relative_name(index), found.labels)
    return tally.scores(protocol)


def check_classes(dataset: SegmentationDataset, taxonomy: Taxonomy) -> None:
    """Raise UserError if a model with this taxonomy cannot be scored on the dataset."""
    if not dataset.labelled:
        raise UserError(
            f"dataset '{dataset.name}' has no labels, so nothing can be scored on it; "
            f"`t2sda infer` writes predictions"
        )
    if dataset.taxonomy.class_names != taxonomy.class_names:
        raise UserError(
            f"dataset '{dataset.name}' has the classes of '{dataset.taxonomy.name}', the model "
            f"those of '{taxonomy.name}'; score on a dataset with the model's classes"
        )
