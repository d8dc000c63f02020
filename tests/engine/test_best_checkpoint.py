"""Which checkpoint is kept for its score, and when a run ends for want of a better one."""

from __future__ import annotations

import pytest
import torch

from t2sda.config import ConfigError, load_config
from t2sda.engine.best_checkpoint import BestCheckpoint
from t2sda.errors import UserError
from t2sda.structures import Step

NAME = "streets/mIoU"


class Saved(BestCheckpoint):
    """Keeps when it saved."""

    def __init__(self, patience: int = 0) -> None:
        self.iterations: list[int] = []
        super().__init__(NAME, patience, self.iterations.append)

    def scored(self, iteration: int, score: float) -> None:
        """An iteration whose evaluation gives a score."""
        self.after_evaluation(iteration, {NAME: score, "streets/accuracy": 1 - score})
        self.after_step(_step(iteration - 1))


def _step(iteration: int) -> Step:
    return Step(iteration, 0, None, None, 1)  # type: ignore[arg-type]


def test_the_first_of_the_best_is_kept() -> None:
    hook = Saved()
    for iteration, score in ((2, 0.1), (4, 0.3), (6, 0.2), (8, 0.3), (10, 0.4)):
        hook.scored(iteration, score)
        hook.after_step(_step(iteration))  # without an evaluation nothing is saved
    assert hook.iterations == [2, 4, 10]
    assert (hook.best, hook.best_iteration, hook.waited) == (0.4, 10, 0)


def test_patience_counts_evaluations_in_a_row() -> None:
    hook = Saved(patience=2)
    ends = []
    for iteration, score in enumerate((0.0, 0.0, 0.1, 0.1, 0.05)):
        hook.scored(iteration, score)
        ends.append(hook.should_stop())
    assert ends == [False, False, False, False, True]
    assert hook.iterations == [0, 2]


def test_what_a_resumed_run_knows() -> None:
    first, second = Saved(patience=2), Saved(patience=2)
    for iteration, score in ((1, 0.2), (2, 1 / 3), (3, 0.1)):
        first.scored(iteration, score)
    second.load_state_dict(first.state_dict())
    assert second.best == 1 / 3  # to the last bit
    second.scored(4, 1 / 3)
    assert second.iterations == []
    assert second.should_stop()
    assert all(isinstance(value, torch.Tensor) for value in second.state_dict().values())


def test_a_score_that_is_not_taken() -> None:
    with pytest.raises(UserError, match="there is no score 'streets/mIoU'; known: streets/IoU/x"):
        Saved().after_evaluation(1, {"streets/IoU/x": 0.5})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["CHECKPOINT.BEST", "camvid_val/mIoU"], "is no score of this run; known: rendered_val/"),
        (["CHECKPOINT.BEST", "mIoU"], "'mIoU' is no score of this run"),
        (["CHECKPOINT.BEST", "rendered_val/mIoU", "EVALUATION.PERIOD", "0"], "nothing is scored"),
        (["CHECKPOINT.PATIENCE", "3"], "CHECKPOINT.BEST names a score"),
    ],
)
def test_settings_that_mean_nothing(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, ["EVALUATION.DATASETS", "[rendered_val]", *overrides])
