"""The analysis of one run: two passes over the images, nothing kept of them but sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from t2sda.analysis.centroids import ClassSums, centroid_similarity
from t2sda.analysis.classes import Classes
from t2sda.analysis.curves import Curves, read_curves
from t2sda.analysis.distances import Discrimination
from t2sda.analysis.embedding import ClassSample
from t2sda.analysis.features import FeatureReader
from t2sda.analysis.pseudo_labels import PseudoLabelScores
from t2sda.data.datasets import SegmentationDataset
from t2sda.engine.checkpoint import Checkpoint
from t2sda.errors import UserError
from t2sda.evaluation.confusion import ConfusionMatrix
from t2sda.evaluation.evaluator import check_classes
from t2sda.losses.pull import Keys
from t2sda.runtime.checkpoints import TorchPredictor, model_of_checkpoint

SIMILARITY, DISTANCES, EMBEDDING, PSEUDO_LABELS, TRAINING = PARTS = (
    *("similarity", "distances", "embedding", "pseudo_labels", "training"),
)
"""What an analysis may consist of; each is a figure."""
SOURCE, TARGET = DOMAINS = ("source", "target")

Progress = Callable[[Sequence[int], str], Iterable[int]]


@dataclass(frozen=True)
class StudySettings:
    """What is analyzed, and how.

    Args:
        parts: of PARTS.
        features: of `t2sda.analysis.features.KINDS`.
        max_images: of a domain, evenly spaced; 0: all.
        pixels_per_class: of a domain, in the embedding.
        seed: of what is drawn.
    """

    parts: Sequence[str] = PARTS
    features: str = "encoder"
    max_images: int = 0
    pixels_per_class: int = 256
    seed: int = 0

    def indices(self, dataset: SegmentationDataset) -> list[int]:
        """The images that are looked at."""
        count = min(self.max_images or len(dataset), len(dataset))
        return np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()


@dataclass
class RunAnalysis:
    """What was found out about a run.

    Attributes:
        name: of the run.
        checkpoint: its file.
        iteration: steps done.
        classes: names and colors.
        features: kind, level, stride and channels.
        num_images: by domain.
        per_class: (C,) float64 by name of the figure; NaN where a class has none.
        samples: features of the embedding by domain.
        quality, threshold: q and δ_p of the teacher's pseudo-labels, if it has a teacher.
        curves: of the run's metrics.
    """

    name: str
    checkpoint: Path
    iteration: int
    classes: Classes
    features: dict[str, str | int | float]
    num_images: dict[str, int] = field(default_factory=dict)
    per_class: dict[str, Tensor] = field(default_factory=dict)
    samples: dict[str, ClassSample] = field(default_factory=dict)
    quality: float | None = None
    threshold: float | None = None
    curves: Curves = field(default_factory=Curves)


class RunStudy:
    """Analyzes the student, and the teacher's pseudo-labels, of one checkpoint.

    Args:
        name: of the run.
        checkpoint: of it.
        data: (source, target) datasets, both labelled with the model's classes.
        settings: what and how.
        device: where to run.
    Raises:
        UserError: if a dataset has no labels, or those of other classes; if the projector's
            features are asked for and there is no projector.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        data: tuple[SegmentationDataset, SegmentationDataset],
        settings: StudySettings,
        device: torch.device,
    ) -> None:
        for dataset in data:
            check_classes(dataset, checkpoint.taxonomy)
        self.settings = settings
        self.data = dict(zip(DOMAINS, data, strict=True))
        groups = data[1].class_groups or data[0].class_groups
        self.classes = Classes.of(checkpoint.taxonomy, groups)
        model = model_of_checkpoint(checkpoint).to(device)
        self.read = FeatureReader.of(checkpoint, model, settings.features, device)
        bound = tuple(checkpoint.cfg.EVALUATION.IMAGE_SIZE) or None
        self.student = TorchPredictor(model, checkpoint.taxonomy, bound, device)
        self.teacher: TorchPredictor | None = None
        if PSEUDO_LABELS in settings.parts and has_teacher(checkpoint):
            teacher = model_of_checkpoint(checkpoint, "teacher").to(device)
            if checkpoint.cfg.META_ARCH.TEACHER_NORM == "batch":
                normalize_by_batch_(teacher)
            self.teacher = TorchPredictor(teacher, checkpoint.taxonomy, bound, device)
        self.threshold = float(checkpoint.cfg.SELF_TRAINING.PSEUDO_LABEL_THRESHOLD)
        spec = self.read.spec
        self.result = RunAnalysis(
            name,
            checkpoint.path,
            checkpoint.iteration,
            self.classes,
            {
                "kind": settings.features,
                "level": self.read.level,
                "stride": spec.stride if isinstance(spec.stride, int) else float(spec.stride),
                "channels": self.read.channels,
            },
        )

    def run(self, progress: Progress) -> RunAnalysis:
        """Pass over the images; `progress` wraps their indices, to show how far it is."""
        parts = self.settings.parts
        centroids: dict[str, Tensor] = {}
        if {SIMILARITY, DISTANCES, EMBEDDING} & set(parts):
            for domain in DOMAINS:
                if domain == TARGET or {SIMILARITY, EMBEDDING} & set(parts):
                    centroids[domain] = self._first_pass(domain, progress)
        if SIMILARITY in parts:
            similarity = centroid_similarity(centroids[SOURCE], centroids[TARGET])
            self.result.per_class["similarity"] = similarity
        if DISTANCES in parts:
            self._second_pass(centroids[TARGET], progress)
        if SIMILARITY in parts or self.teacher is not None:
            self._predictions(progress)
        if TRAINING in parts:
            self.result.curves = read_curves(self.result.checkpoint.parent / "metrics.jsonl")
        return self.result

    def _first_pass(self, domain: str, progress: Progress) -> Tensor:
        """Centroids of a domain, (C, D), and the sample of its features.

        Raises UserError if nothing is labelled there.
        """
        settings, num_classes = self.settings, len(self.classes)
        sums = ClassSums(num_classes, self.read.channels)
        sample = ClassSample(
            num_classes, self.read.channels, settings.pixels_per_class, settings.seed
        )
        for index in self._indices(domain, "centroids", progress):
            features, labels = self._features(domain, index)
            sums.add(features, labels)
            if EMBEDDING in settings.parts:
                sample.add(features, labels, index)
        if not sums.counts.any():
            raise UserError(
                f"dataset '{self.data[domain].name}': no labelled pixel is in the "
                f"{self.result.num_images[domain]} images that were looked at; look at more, or "
                f"check its labels with `t2sda data check {self.data[domain].name}`"
            )
        if EMBEDDING in settings.parts:
            self.result.samples[domain] = sample
        self.result.per_class[f"{domain}_cells"] = sums.counts.double()
        return sums.centroids

    def _second_pass(self, centroids: Tensor, progress: Progress) -> None:
        """CCD and PDD on the target."""
        distances = Discrimination(centroids)
        for index in self._indices(TARGET, "distances", progress):
            distances.add(*self._features(TARGET, index))
        self.result.per_class |= {
            "center_distance": distances.center_distances(),
            "pixel_distance": distances.pixel_distances(),
            "cells_without_ratio": distances.left_out.double(),
        }

    def _predictions(self, progress: Progress) -> None:
        """The student's IoU on the target, and what the teacher's pseudo-labels are worth there."""
        num_classes = len(self.classes)
        confusion = ConfusionMatrix(num_classes)
        scores = PseudoLabelScores(num_classes, self.threshold)
        for index in self._indices(TARGET, "predictions", progress):
            sample = self.data[TARGET].load(index)
            assert sample.label is not None
            truth = self.classes.merged(sample.label)
            predicted = self.classes.merged(self.student.predict(sample.image))
            confusion.update(predicted, truth)
            if self.teacher is not None:
                probabilities = self.teacher.probabilities(sample.image)
                pseudo_labels = self.classes.merged(probabilities.argmax(axis=0).astype(np.uint8))
                confidence = torch.from_numpy(probabilities.max(axis=0))
                scores.add(torch.from_numpy(pseudo_labels), confidence, torch.from_numpy(truth))
        self.result.per_class["iou"] = torch.from_numpy(confusion.iou())
        if self.teacher is not None:
            self.result.quality, self.result.threshold = scores.quality, self.threshold
            self.result.per_class |= {
                "pseudo_label_coverage": scores.coverage(),
                "pseudo_label_accuracy": scores.accuracy(),
                "pseudo_label_accuracy_of_all": scores.accuracy_of_all(),
            }

    def _indices(self, domain: str, what: str, progress: Progress) -> Iterable[int]:
        indices = self.settings.indices(self.data[domain])
        self.result.num_images[domain] = len(indices)
        return progress(indices, f"{self.result.name}: {what}, {domain}")

    def _features(self, domain: str, index: int) -> Keys:
        """Features of an image's cells, and their classes in place of train ids."""
        found = self.read(self.data[domain].load(index))
        class_of = torch.from_numpy(self.classes.class_of).long()
        return Keys(found.embeddings, class_of[found.labels])


def normalize_by_batch_(teacher: nn.Module) -> None:
    """Let BatchNorm take the statistics of what it is shown, as in training, and record nothing."""
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.train()


def has_teacher(checkpoint: Checkpoint) -> bool:
    """Whether the run trained with one."""
    return any(name.startswith("teacher.model.") for name in checkpoint.meta_arch)
