"""Objectives of the pull loss: what a query loses against its prototype and its negatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.losses.pull import info_nce, pull_mse
from t2sda.registry import OBJECTIVES


class PullObjective(ABC):
    """The loss of every query; sampling, class weights and the mean are `PullLoss`'s.

    Attributes:
        contrasts: whether negatives are drawn for it.
    """

    contrasts: ClassVar[bool] = True

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        """Read its settings, if it has some."""
        return cls()

    @abstractmethod
    def __call__(
        self,
        queries: Tensor,
        prototype: Tensor,
        negatives: Tensor | None,
        log_times: Tensor | None,
    ) -> Tensor:
        """The loss of the queries of one class.

        Args:
            queries: (Q, D) unit vectors; only they have a gradient.
            prototype: (D,) their positive key.
            negatives: (k, D) unit vectors, shared by the queries; None unless it contrasts.
            log_times: (k,) log of how often each negative counts; None unless it contrasts.
        Returns:
            (Q,).
        """


@OBJECTIVES.register("info_nce")
class InfoNce(PullObjective):
    """Eq. (2).

    Args:
        temperature: τ.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        """Read T2SDA.TEMPERATURE."""
        return cls(cfg.T2SDA.TEMPERATURE)

    def __call__(
        self,
        queries: Tensor,
        prototype: Tensor,
        negatives: Tensor | None,
        log_times: Tensor | None,
    ) -> Tensor:
        """(Q,) as `info_nce`."""
        assert negatives is not None
        assert log_times is not None
        return info_nce(queries, prototype, negatives, log_times, self.temperature)


@OBJECTIVES.register("mse")
class SquaredDistance(PullObjective):
    """The squared distance to the prototype."""

    contrasts = False

    def __call__(
        self,
        queries: Tensor,
        prototype: Tensor,
        negatives: Tensor | None,
        log_times: Tensor | None,
    ) -> Tensor:
        """(Q,) as `pull_mse`."""
        return pull_mse(queries, prototype)
