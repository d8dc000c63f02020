"""Images of the training: what the student is shown and predicts, what the teacher says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor

from t2sda.data.taxonomies import Taxonomy
from t2sda.engine.hooks import Hook, Stage
from t2sda.inference.visualisation import class_counts, heat_map, overlay, titled_rows
from t2sda.meta_arch.base import MetaArch, StudentPass
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.structures import TARGET_PROBS, Step

NUM_ROWS = 2
"""Images of the mini-batch that are shown."""
MAX_SIDE = 384
"""Longer sides of panels are reduced to it: crops of 1024 would make sheets of 30 MB."""


class TrainingImages(Hook):
    """Every `period` steps, and after the last one, three sheets of the last micro-batch.

    `images/source`: image, truth, prediction. `images/target`: image, truth where the set has it,
    prediction, and the teacher's pseudo-labels and confidence. `images/student`: what every pass
    showed to the student, such as the mixed and the translated image. They are made from the
    record of the step, when they are due and not before.

    Args:
        meta_arch: whose passes and student are shown.
        taxonomy: names and colors.
        device: of the run.
        write: takes the iteration and images by name; None on the ranks that write nothing.
        period: see EVALUATION.PERIOD; 0: never.
        max_iter: of the run.
    """

    stage = Stage.EVALUATION

    def __init__(
        self,
        meta_arch: MetaArch,
        taxonomy: Taxonomy,
        device: torch.device,
        write: Callable[[int, Mapping[str, np.ndarray]], None] | None,
        *,
        period: int,
        max_iter: int,
    ) -> None:
        self.meta_arch = meta_arch
        self.taxonomy = taxonomy
        self.predictor = TorchPredictor(meta_arch.student.model, taxonomy, None, device)
        self.write = write
        self.period = period
        self.max_iter = max_iter

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """Make the sheets, if they are due."""
        done = step.iteration + 1
        if not self.period or (done % self.period and done != self.max_iter):
            return
        student = self._student(step)  # on all ranks: some draw for the whole mini-batch
        if self.write is None:
            return
        sheets = {"images/source": self._source(step), "images/student": student}
        if step.batch.target_image is not None:
            sheets["images/target"] = self._target(step)
        self.write(done, {name: sheet for name, sheet in sheets.items() if sheet is not None})

    def _source(self, step: Step) -> np.ndarray:
        images, truth = _images(step.batch.source_image), _labels(step.batch.source_label)
        panels = {
            "image": images,
            "truth": self._overlays(images, truth),
            "prediction": self._overlays(images, self.predictor.predict(images)),
        }
        return self._sheet(panels, truth)

    def _target(self, step: Step) -> np.ndarray:
        images = _images(step.batch.image("target"))
        predicted = self.predictor.predict(images)
        named = list(predicted)
        panels = {"image": images}
        if step.batch.target_label is not None:
            panels["label"] = self._overlays(images, _labels(step.batch.target_label))
        panels["prediction"] = self._overlays(images, predicted)
        if step.teacher is not None and TARGET_PROBS in step.teacher.views:
            pseudo_labels = _labels(step.teacher.pseudo_labels)
            named += pseudo_labels
            panels["pseudo-labels"] = self._overlays(images, pseudo_labels)
            confidence = step.teacher.confidence[:NUM_ROWS].float().cpu().numpy()
            panels["confidence"] = [heat_map(own) for own in confidence]
        return self._sheet(panels, named)

    def _student(self, step: Step) -> np.ndarray | None:
        panels = {}
        for name, student_pass in self.meta_arch.passes.items():
            shown = cast(StudentPass, student_pass).shown(self.meta_arch.student, step)
            if shown is not None:
                panels[f"{name} pass"] = _images(shown)
        return self._sheet(panels) if panels else None

    def _overlays(self, images: list[np.ndarray], labels: list[np.ndarray]) -> list[np.ndarray]:
        return [
            overlay(image, own, self.taxonomy) for image, own in zip(images, labels, strict=True)
        ]

    def _sheet(
        self, panels: Mapping[str, list[np.ndarray]], labels: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        """A column for each title, a row for each image; a legend of the labels' classes."""
        rows = [[_reduced(panel) for panel in row] for row in zip(*panels.values(), strict=True)]
        counts = sum((class_counts(own, self.taxonomy) for own in labels), np.zeros(1, np.int64))
        return titled_rows(tuple(panels), rows, counts if labels else None, self.taxonomy)


def _images(image: Tensor) -> list[np.ndarray]:
    """(B, 3, H, W) in [0, 255] -> (H, W, 3) uint8 of the first ones."""
    first = image[:NUM_ROWS].float().round().clamp(0, 255).to(torch.uint8)
    return list(np.ascontiguousarray(first.cpu().numpy().transpose(0, 2, 3, 1)))


def _labels(labels: Tensor) -> list[np.ndarray]:
    """(B, H, W) train ids -> (H, W) uint8 of the first ones."""
    return list(labels[:NUM_ROWS].to(torch.uint8).cpu().numpy())


def _reduced(panel: np.ndarray) -> np.ndarray:
    scale = MAX_SIDE / max(panel.shape[:2])
    if scale >= 1:
        return panel
    size = (round(panel.shape[1] * scale), round(panel.shape[0] * scale))
    return cv2.resize(panel, size, interpolation=cv2.INTER_AREA)
