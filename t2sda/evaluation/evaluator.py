"""Scores of a predictor on a labelled dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.data.datasets import SegmentationDataset
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import rank, sum_over_ranks, world_size
from t2sda.errors import UserError
from t2sda.evaluation.confusion import ConfusionMatrix
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
    },
)


@SCHEMA.check
def image_size_is_a_pair(cfg: CfgNode) -> str | None:
    """EVALUATION.IMAGE_SIZE is empty or a height and a width."""
    if len(cfg.EVALUATION.IMAGE_SIZE) in (0, 2):
        return None
    return f"EVALUATION.IMAGE_SIZE: {cfg.EVALUATION.IMAGE_SIZE} is not (height, width)"


Progress = Callable[[Sequence[int], str], Iterable[int]]


@dataclass(frozen=True)
class Scores:
    """Scores on one dataset, as shares of 1.

    Attributes:
        dataset: its name.
        iou: per class or class group; NaN for one that is neither there nor predicted.
        mean_iou: over the classes that are there.
        subset_iou: mean IoU over the taxonomy's named subsets.
        accuracy: share of labelled pixels that are right.
        num_images: how many were scored.
    """

    dataset: str
    iou: dict[str, float]
    mean_iou: float
    subset_iou: dict[str, float]
    accuracy: float
    num_images: int

    def as_metrics(self) -> dict[str, float]:
        """Flat names for the metric writers."""
        prefix = f"evaluation/{self.dataset}"
        return {
            f"{prefix}/mIoU": self.mean_iou,
            f"{prefix}/accuracy": self.accuracy,
            **{f"{prefix}/{name}": value for name, value in self.subset_iou.items()},
            **{f"{prefix}/IoU/{name}": value for name, value in self.iou.items()},
        }


def evaluate(
    predictor: Predictor,
    dataset: SegmentationDataset,
    taxonomy: Taxonomy,
    progress: Progress = lambda indices, what: indices,
) -> Scores:
    """Score a predictor on a dataset; every rank takes its share of the images.

    Args:
        predictor: of the student.
        dataset: labelled with the model's classes.
        taxonomy: the model's.
        progress: wraps the indices, to show how far it is; also gets the dataset's name.
    Raises:
        UserError: if the dataset is unlabelled or labelled with other classes.
    """
    check_classes(dataset, taxonomy)
    confusion = ConfusionMatrix(taxonomy.num_classes)
    for index in progress(range(rank(), len(dataset), world_size()), dataset.name):
        sample = dataset.load(index)
        assert sample.label is not None
        prediction = torch.from_numpy(predictor.predict(sample.image))
        confusion.update(prediction, torch.from_numpy(np.require(sample.label, requirements="W")))
    confusion.counts = sum_over_ranks(confusion.counts)
    return _scores(confusion, dataset, taxonomy)


def check_classes(dataset: SegmentationDataset, taxonomy: Taxonomy) -> None:
    """Raise UserError if a model with this taxonomy cannot be scored on the dataset."""
    if not dataset.labelled:
        raise UserError(f"dataset '{dataset.name}' has no labels, so nothing can be scored on it")
    if dataset.taxonomy.class_names != taxonomy.class_names:
        raise UserError(
            f"dataset '{dataset.name}' has the classes of '{dataset.taxonomy.name}', the model "
            f"those of '{taxonomy.name}'; score on a dataset with the model's classes"
        )


def _scores(confusion: ConfusionMatrix, dataset: SegmentationDataset, taxonomy: Taxonomy) -> Scores:
    names = taxonomy.class_names
    subset_iou = {
        name: confusion.mean_iou(train_ids) for name, train_ids in taxonomy.subsets.items()
    }
    if dataset.class_groups:
        confusion = confusion.merge([group.train_ids for group in dataset.class_groups])
        names = tuple(group.name for group in dataset.class_groups)
        subset_iou = {}
    return Scores(
        dataset=dataset.name,
        iou=dict(zip(names, confusion.iou().tolist(), strict=True)),
        mean_iou=confusion.mean_iou(),
        subset_iou=subset_iou,
        accuracy=confusion.accuracy(),
        num_images=len(dataset),
    )
