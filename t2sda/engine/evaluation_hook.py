"""Scoring the student while it trains."""

from __future__ import annotations

from collections.abc import Callable

from t2sda.engine.hooks import Hook, Stage
from t2sda.evaluation.entries import Scores
from t2sda.structures import Step


class EvaluationHook(Hook):
    """Scores the student every `period` steps and after the last one, which is the run's figure.

    No snapshot is chosen by its score unless CHECKPOINT.BEST asks for one, and no networks are
    averaged (docs/fidelity.md, E9).

    Args:
        evaluate: takes the iteration and scores the student on every dataset; called on all ranks.
        report: takes the iteration and the scores.
        period: in iterations; 0: never.
        max_iter: of the run.
    """

    stage = Stage.EVALUATION

    def __init__(
        self,
        evaluate: Callable[[int], list[Scores]],
        report: Callable[[int, list[Scores]], None],
        *,
        period: int,
        max_iter: int,
    ) -> None:
        self.evaluate = evaluate
        self.report = report
        self.period = period
        self.max_iter = max_iter

    def after_step(self, step: Step) -> None:
        """Score if it is due."""
        done = step.iteration + 1
        if self.period and (done % self.period == 0 or done == self.max_iter):
            self.report(done, self.evaluate(done))
