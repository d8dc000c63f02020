"""The checkpoint with the best score so far, and the end of a run that no longer gets better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.engine.hooks import Hook, Stage
from t2sda.errors import UserError
from t2sda.structures import Step

SCHEMA.declare(
    "CHECKPOINT",
    {
        "BEST": Field(
            "",
            "score whose best checkpoint is kept as checkpoint_best.pth: a dataset of "
            "EVALUATION.DATASETS and mIoU, accuracy or IoU/CLASS, as rendered_val/mIoU; empty: "
            "none",
        ),
    },
)
SCHEMA.declare(
    "CHECKPOINT",
    {
        "PATIENCE": Field(
            0, "evaluations in a row without a better score that end the run; 0: none do", low=0
        ),
    },
    when=lambda cfg: bool(cfg.CHECKPOINT.BEST),
    when_text="CHECKPOINT.BEST names a score",
)


@SCHEMA.check
def best_is_a_score(cfg: CfgNode) -> str | None:
    """The score that a checkpoint is chosen by is one that the run takes."""
    dataset, _, score = cfg.CHECKPOINT.BEST.partition("/")
    if not cfg.CHECKPOINT.BEST:
        return None
    if dataset not in cfg.EVALUATION.DATASETS or not score:
        known = ", ".join(f"{name}/mIoU" for name in cfg.EVALUATION.DATASETS) or "none"
        return f"CHECKPOINT.BEST: '{cfg.CHECKPOINT.BEST}' is no score of this run; known: {known}"
    if not cfg.EVALUATION.PERIOD:
        return "CHECKPOINT.BEST: nothing is scored while EVALUATION.PERIOD is 0"
    return None


def best_path(output_dir: Path) -> Path:
    """Where the checkpoint with the best score lies."""
    return output_dir / "checkpoint_best.pth"


class BestCheckpoint(Hook):
    """Saves when the score is better than ever; of equal scores the first counts.

    Args:
        score: its name, as CHECKPOINT.BEST has it; higher is better.
        patience: evaluations without a better one that end the run; 0: none do.
        save: takes the iterations done; called on every rank.
    """

    stage = Stage.CHECKPOINT

    def __init__(self, score: str, patience: int, save: Callable[[int], None]) -> None:
        self.score = score
        self.patience = patience
        self.save = save
        self.best = -1.0  # below any score
        self.best_iteration = 0
        self.waited = 0
        self._is_due = False

    def state_dict(self) -> dict[str, Tensor]:
        """The best score, when it was, and how many evaluations ago."""
        return {
            "best": torch.tensor(self.best, dtype=torch.float64),
            "best_iteration": torch.tensor(self.best_iteration),
            "waited": torch.tensor(self.waited),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on with what a checkpoint holds."""
        self.best = float(state["best"])
        self.best_iteration = int(state["best_iteration"])
        self.waited = int(state["waited"])

    def after_evaluation(self, iteration: int, scores: Mapping[str, float]) -> None:
        """Compare; raises UserError if the score is not there."""
        if self.score not in scores:
            raise UserError(
                f"CHECKPOINT.BEST: there is no score '{self.score}'; known: {', '.join(scores)}"
            )
        if scores[self.score] > self.best:
            self.best, self.best_iteration, self.waited = scores[self.score], iteration, 0
            self._is_due = True
        else:
            self.waited += 1

    def after_step(self, step: Step) -> None:
        """Save, now that the step is all done."""
        if self._is_due:
            self._is_due = False
            self.save(step.iteration + 1)

    def should_stop(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.waited
