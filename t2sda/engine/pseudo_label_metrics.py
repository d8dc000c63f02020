"""How sure the teacher is while it trains: curves of its pseudo-labels, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.distributed import mean_over_ranks, sum_over_ranks
from t2sda.engine.hooks import Hook
from t2sda.losses.pseudo_labels import pseudo_label_quality
from t2sda.losses.reweighting import class_confidence_sums
from t2sda.meta_arch.base import teacher_views
from t2sda.meta_arch.target_labels import reads_pseudo_labels
from t2sda.structures import TARGET_PROBS, Step


class PseudoLabelMetrics(Hook):
    """Quality, confidence and share of the target's pseudo-labels, of every `period`-th step.

    `pseudo_labels/quality` is q of Eq. (S2) over the mini-batch, `pseudo_labels/confidence/CLASS`
    conf(c) of Eq. (13), NaN for a class that no pixel is predicted as, and
    `pseudo_labels/share/CLASS` its share of the pixels. Nothing is computed in other steps, and the
    host does not wait for what is.

    Args:
        class_names: C names.
        threshold: δ_p; None: the run weighs no pseudo-labels, so there is no quality.
        period: see LOGGING.PERIOD.
        max_iter: of the run.
    """

    def __init__(
        self, class_names: Sequence[str], threshold: float | None, period: int, max_iter: int
    ) -> None:
        self.class_names = class_names
        self.threshold = threshold
        self.period = period
        self.max_iter = max_iter

    @classmethod
    def for_run(cls, cfg: CfgNode, class_names: Sequence[str]) -> list[Self]:
        """Of a run whose teacher sees the target; none of others."""
        if TARGET_PROBS not in teacher_views(cfg):
            return []
        threshold = cfg.SELF_TRAINING.PSEUDO_LABEL_THRESHOLD if reads_pseudo_labels(cfg) else None
        return [cls(class_names, threshold, cfg.LOGGING.PERIOD, cfg.SOLVER.MAX_ITER)]

    def after_step(self, step: Step) -> None:
        """Hand scalars of the last micro-batch to the metrics, if they are due."""
        done = step.iteration + 1
        if done % self.period and done != self.max_iter:
            return
        teacher = step.teacher
        assert teacher is not None
        sums, counts = class_confidence_sums(
            teacher.confidence, teacher.pseudo_labels, len(self.class_names)
        )
        sums, counts = sum_over_ranks(sums), sum_over_ranks(counts)
        metrics = self._named("confidence", sums / counts)
        metrics |= self._named("share", counts / counts.sum())
        if self.threshold is not None:
            quality = pseudo_label_quality(teacher.confidence, self.threshold)
            metrics["pseudo_labels/quality"] = mean_over_ranks(quality)
        step.deferred_metrics.update(metrics)

    def _named(self, what: str, values: Tensor) -> dict[str, Tensor]:
        """(C,) as scalars by name."""
        names = (f"pseudo_labels/{what}/{name}" for name in self.class_names)
        return dict(zip(names, torch.unbind(values), strict=True))
