"""The pull loss, Eq. (2) to (8), (10) and (11): Algorithm 1 of the paper from line 31 on.

The host reads once how many rows every class has; then a loop over the classes present gathers what
was drawn for each. With draws "replacement" neither cost nor memory of the loop grows with the keys
of all ranks; the exact modes (docs/fidelity.md, B13) are for small grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.losses.numerics import at_least_float32, l2_normalize
from t2sda.losses.pull_sampling import (
    RowsByClass,
    class_counts,
    draw,
    members_of,
    num_negatives,
    num_queries,
)

CHOICES = {
    "objective": ("info_nce", "mse"),
    "reduction": ("class_mean", "query_sum"),
    "query_strategy": ("cbqs", "ceqs", "uniform"),
    "negative_strategy": ("domain_equalized", "union", "source"),
    "query_draw": ("replacement", "exact"),
    "negative_draw": ("replacement", "exact"),
    "prototype_norm": ("after", "before", "both"),
}


class Keys(NamedTuple):
    """Embeddings, of a teacher's grid or of a memory, and the class that each stands for."""

    embeddings: Tensor
    """(N, D), not normalized."""
    labels: Tensor
    """(N,) int64 in [0, C); IGNORE_INDEX is no class."""

    @classmethod
    def from_grid(cls, embeddings: Tensor, labels: Tensor) -> Keys:
        """Flatten (B, D, h, w) embeddings and their (B, h, w) labels.

        Raises:
            ValueError: if labels are not at the resolution of embeddings.
        """
        grid = (len(embeddings), *embeddings.shape[2:])
        if grid != labels.shape:
            raise ValueError(
                f"embeddings are on a grid of {grid}, their labels on {tuple(labels.shape)}; "
                f"reduce the labels with labels_on_grid"
            )
        return cls(embeddings.movedim(1, -1).flatten(0, -2), labels.flatten())


class Objective(Protocol):
    """What every query of a class loses; see `t2sda.meta_arch.objectives.PullObjective`."""

    @property
    def contrasts(self) -> bool:
        """Whether negatives are drawn for it."""

    def __call__(
        self,
        queries: Tensor,
        prototype: Tensor,
        negatives: Tensor | None,
        log_times: Tensor | None,
    ) -> Tensor:
        """(Q, D), (D,), (k, D), (k,) -> (Q,)."""


@dataclass(frozen=True)
class PullLoss:
    """L_pull, Eq. (3), with the sampling in front of it.

    Args:
        temperature: τ.
        queries_per_class: n, the base number of queries.
        num_negatives: m, shared by the queries of a class as in Algorithm 1; the text draws m for
            each query (docs/fidelity.md, B12).
        objective: "info_nce" (Eq. 2) or "mse", see `info_nce` and `pull_mse`, or one of your own.
        reduction: "class_mean", w*_c times the mean over a class's queries, as Algorithm 1 with the
            mean of `F.cross_entropy`: n_q(c) then changes the variance only, and as w* sums to 1
            there is no further 1/C. Or "query_sum", the letter of Eq. (3): w*_c / C times their
            sum, n / C times larger with uniform w* (docs/fidelity.md, B1).
        query_strategy: "cbqs", "ceqs" or "uniform", see `num_queries`.
        negative_strategy: "domain_equalized", "union" or "source", see `num_negatives`.
        query_draw, negative_draw: "replacement" as published, or "exact": all candidates, weighted
            by how often they would be drawn (docs/fidelity.md, B13). Of queries that gives the
            expectation of the loss; of negatives the limit of drawing ever more of them.
        prototype_norm: "after", "before" or "both", see `class_prototypes`; None where prototypes
            are given as positives, one a class.
    """

    temperature: float = 0.2
    queries_per_class: int = 128
    num_negatives: int = 1024
    objective: str | Objective = "info_nce"
    reduction: str = "class_mean"
    query_strategy: str = "cbqs"
    negative_strategy: str = "domain_equalized"
    query_draw: str = "replacement"
    negative_draw: str = "replacement"
    prototype_norm: str | None = "after"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if isinstance(getattr(self, name), str) and getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} of the pull loss is '{getattr(self, name)}'; "
                    f"known: {', '.join(choices)}"
                )
        for name in ("temperature", "queries_per_class", "num_negatives"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} of the pull loss is {getattr(self, name)}; must be > 0")

    @property
    def negative_domains(self) -> tuple[str, ...]:
        """Domains that negatives come from; none with MSE."""
        own = self.objective
        if not (own == "info_nce" if isinstance(own, str) else own.contrasts):
            return ()
        return ("source",) if self.negative_strategy == "source" else ("source", "target")

    def __call__(
        self,
        queries: Tensor,
        query_labels: Tensor,
        positives: Keys,
        source_keys: Keys | None,
        target_keys: Keys | None,
        class_weights: Tensor,
        generator: torch.Generator,
        first_row: int = 0,
    ) -> Tensor:
        """The loss; only `queries` get a gradient.

        On several ranks everything but `queries` is of the whole mini-batch, gathered, and the
        generators are alike. The result is then this rank's share: the shares of all ranks add up
        to the loss of the whole mini-batch.

        Args:
            queries: (n, D) student embeddings, of translated images in T2S-DA, Eq. (4).
            query_labels: (N,) of all ranks; those of `queries` begin at `first_row`.
            positives: what the prototypes are means of, Eq. (5); in T2S-DA the teacher's source
                embeddings.
            source_keys: candidates for negatives, Eq. (7); the teacher's source embeddings. None
                with MSE, which has no negatives.
            target_keys: candidates for negatives, Eq. (8); the teacher's target embeddings with
                their `unreliable_labels`. None: no target (docs/fidelity.md, B26).
            class_weights: (C,) w* of Eq. (3), not normalized again over the classes present
                (docs/fidelity.md, B4); 1/C each without re-weighting.
            generator: on the device of the tensors.
        Returns:
            Scalar. A class without queries, prototype or negatives is skipped
            (docs/fidelity.md, B5, B35); where none is left, the loss is 0 and still connected to
            the graph.
        """
        domains = self._domains(source_keys, target_keys)
        labels = (query_labels, positives.labels, *(keys.labels for keys in domains))
        num_classes = len(class_weights)
        query_generator = generator if self.query_draw == "replacement" else None
        key_generator = generator if self.negative_draw == "replacement" else None
        with torch.autocast(device_type=queries.device.type, enabled=False):
            prototypes = class_prototypes(positives, num_classes, self.prototype_norm)  # (C, D)
            counts, n_q, m = self._sizes(labels, num_classes, query_generator, key_generator)
            classes = [
                c
                for c in range(num_classes)
                if n_q[c] and counts[1][c] and (not domains or any(m[c]))
            ]
            candidates = RowsByClass(query_labels, counts[0])
            others = [RowsByClass(*pair) for pair in zip(labels[2:], counts[2:], strict=True)]
            drawn = [draw(candidates.of(c), n_q[c], query_generator) for c in classes]
            loss = at_least_float32(queries[:0]).sum()
            for c, unit, times in zip(classes, *_gather(queries, drawn, first_row), strict=True):
                negatives = [
                    (keys.embeddings, *draw(side.others(c), wanted, key_generator))
                    for keys, side, wanted in zip(domains, others, m[c], strict=True)
                    if wanted
                ]
                losses = self._losses(unit, prototypes[c], negatives)
                divisor = num_classes if self.reduction == "query_sum" else n_q[c]
                loss = loss + class_weights[c] * (losses * times).sum() / divisor
            return loss

    def _losses(
        self, queries: Tensor, prototype: Tensor, negatives: list[tuple[Tensor, Tensor, Tensor]]
    ) -> Tensor:
        """(Q,) of the objective; `negatives` as `_join` takes them, none where it has none."""
        joined = _join(negatives) if negatives else (None, None)
        if not isinstance(self.objective, str):
            return self.objective(queries, prototype, *joined)
        if joined[0] is None or joined[1] is None:
            return pull_mse(queries, prototype)
        return info_nce(queries, prototype, *joined, self.temperature)

    def _domains(self, source: Keys | None, target: Keys | None) -> list[Keys]:
        """The candidates for negatives that are there, those of the source first."""
        if self.negative_domains and source is None:
            raise ValueError("InfoNCE needs negatives: give the pull loss its source_keys")
        given = {"source": source, "target": target}
        return [keys for name in self.negative_domains if (keys := given[name]) is not None]

    def _sizes(
        self,
        labels: Sequence[Tensor],
        num_classes: int,
        query_generator: torch.Generator | None,
        key_generator: torch.Generator | None,
    ) -> tuple[list[list[int]], list[float], list[tuple[float, ...]]]:
        """On the host: `class_counts` of all labels, n_q of every class, its m by domain."""
        counts = torch.stack([class_counts(one, num_classes) for one in labels])
        others = counts[2:].sum(dim=1, keepdim=True) - counts[2:]  # (domains, C)
        n_q = num_queries(counts[0], self.queries_per_class, self.query_strategy, query_generator)
        m = num_negatives(others, self.num_negatives, self.negative_strategy, key_generator)
        # The only time the host waits for the device.
        rows = torch.cat([counts, n_q[None], m]).double().tolist()
        known = [[int(count) for count in row] for row in rows[: len(labels)]]
        by_class = list(zip(*rows[len(labels) + 1 :], strict=True)) or [()] * num_classes
        return known, rows[len(labels)], by_class


def info_nce(
    queries: Tensor,
    prototype: Tensor,
    negatives: Tensor,
    log_times: Tensor,
    temperature: float,
) -> Tensor:
    """InfoNCE of every query, Eq. (2), as the cross entropy of lines 55 to 62.

    Args:
        queries: (Q, D) unit vectors of one class.
        prototype: (D,) their positive key.
        negatives: (k, D) unit vectors, shared by the queries.
        log_times: (k,) log of how often each negative counts.
        temperature: τ.
    Returns:
        (Q,).
    """
    keys = torch.cat([prototype[None], negatives]).to(queries.dtype)  # (1 + k, D)
    bias = F.pad(log_times, (1, 0)).to(queries.dtype)  # the prototype counts once
    logits = F.linear(queries / temperature, keys, bias)  # (Q, 1 + k)
    answers = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    return F.cross_entropy(logits, answers, reduction="none")


def pull_mse(queries: Tensor, prototype: Tensor) -> Tensor:
    """Squared distance of every query to its positive, ||q - k+||^2: (Q, D), (D,) -> (Q,)."""
    return (queries - prototype.to(queries.dtype)).square().sum(dim=-1)


@torch.no_grad()
def class_prototypes(keys: Keys, num_classes: int, norm: str | None = "after") -> Tensor:
    """k+ of every class, Eq. (5) and (6).

    Raw embeddings are averaged and the mean is normalized ("after"), as in the equations; Algorithm
    1 normalizes the embeddings and leaves the mean as it is ("before"); "both" normalizes twice
    (docs/fidelity.md, B6), None not at all.

    Returns:
        (num_classes, D) in float32 or better; the row of a class without keys is NaN.
    """
    embeddings = averaged_embeddings(keys.embeddings, norm)
    members = members_of(keys.labels, num_classes).to(embeddings.dtype)
    return normed_means(members @ embeddings / members.sum(dim=1, keepdim=True), norm)


def averaged_embeddings(embeddings: Tensor, norm: str | None) -> Tensor:
    """(N, D), as they go into the means of `class_prototypes`."""
    embeddings = at_least_float32(embeddings)
    return l2_normalize(embeddings) if norm in ("before", "both") else embeddings


def normed_means(means: Tensor, norm: str | None) -> Tensor:
    """(C, D) prototypes of their means."""
    return l2_normalize(means) if norm in ("after", "both") else means


def _gather(
    queries: Tensor, drawn: list[tuple[Tensor, Tensor]], first_row: int
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """(Q_c, D) unit vectors of every class, and (Q_c,) how often each counts; 0 if not ours."""
    if not drawn:
        return (), ()
    sizes = [len(rows) for rows, _ in drawn]
    rows, times = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    # A row of another rank becomes row 0 with a weight of 0, so that shapes do not depend on ranks.
    ours = (rows >= first_row) & (rows < first_row + len(queries))
    # The gradient of index_select is summed in order on a CPU; that of indexing is not.
    unit = l2_normalize(at_least_float32(queries.index_select(0, (rows - first_row) * ours)))
    return unit.split(sizes), (times * ours).to(unit.dtype).split(sizes)


@torch.no_grad()
def _join(drawn: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(k, D) unit vectors of all domains, and (k,) the log of how often each counts.

    Args:
        drawn: of every domain (N, D) embeddings, the rows of them and how often each counts.
    """
    keys = torch.cat([embeddings.index_select(0, rows) for embeddings, rows, _ in drawn])
    times = torch.cat([times for *_, times in drawn])
    return l2_normalize(at_least_float32(keys)), times.log()
