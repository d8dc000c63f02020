"""Which queries and negatives the pull loss draws, and how many: Eq. (4), (7), (10) and (11)."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from t2sda.losses.numerics import draw_below


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """How many of the labels are of every class: (N,) -> (C,)."""
    return members_of(labels, num_classes).sum(dim=1)


def num_queries(
    counts: Tensor, queries_per_class: int, strategy: str, generator: torch.Generator | None
) -> Tensor:
    """n_q(c) of section 3.3: how many queries every class gives.

    - "cbqs": ceil(C·p(c)·n) with p of Eq. (11), class-balanced as published; in integers, so that
      no rounding error is rounded up.
    - "ceqs": n for every class that is there.
    - "uniform": C·n positions drawn from all alike, whatever their class; the reading we give to
      "without CBQS" (docs/fidelity.md, B32).

    Args:
        counts: (C,) int64 labelled positions of every class, of the whole mini-batch.
        queries_per_class: n.
        generator: used by "uniform" alone; None: its expectation, C·n·p(c).
    Returns:
        (C,); 0 for absent classes (docs/fidelity.md, B5).
    """
    budget, total = len(counts) * queries_per_class, counts.sum().clamp(min=1)
    if strategy == "cbqs":
        return (counts * budget + total - 1) // total
    if strategy == "ceqs":
        return (counts > 0) * queries_per_class
    if generator is None:
        return counts.double() * budget / total
    return _draw_counts(counts, budget, generator)


def num_negatives(
    others: Tensor, num_negatives: int, strategy: str, generator: torch.Generator | None
) -> Tensor:
    """How many of the m negatives of every class come from each domain, Eq. (7), (8), (10).

    Only positions of another class count, not the union over all classes of Eq. (10), which would
    hold the positives (docs/fidelity.md, B10), nor unlabelled ones (B11).

    - "domain_equalized" (DENPS): m/2 from the source and m/2 from the target, which gives the
      larger half of an odd m; all m from one domain where the other has none (B35).
    - "union": m from the candidates of both domains alike.
    - "source": m from the source, the only domain given.

    Args:
        others: (domains, C) positions of another class, of the whole mini-batch.
        num_negatives: m.
        generator: used by "union" alone; None: its expectation.
    Returns:
        (domains, C); zeros for a class without candidates.
    """
    if strategy == "union":
        if generator is not None:
            return _draw_counts(others.T, num_negatives, generator).T
        return num_negatives * others.double() / others.sum(dim=0).clamp(min=1)
    halves = torch.full_like(others, num_negatives // 2)
    halves[1:] = num_negatives - num_negatives // 2
    alone = (others > 0).sum(dim=0) == 1
    return torch.where(alone, num_negatives, halves) * (others > 0)


class RowsByClass:
    """The rows of every class, and those of all other classes, as slices of one ring.

    Args:
        labels: (N,) as in `Keys`.
        counts: their `class_counts`, on the host.
    """

    def __init__(self, labels: Tensor, counts: list[int]) -> None:
        self.counts, self.ends = counts, list(accumulate(counts))
        labelled = labels.argsort(stable=True)[: self.ends[-1]]  # no class comes last
        self.ring = labelled.repeat(2)

    def of(self, c: int) -> Tensor:
        """(counts[c],) rows of class c: its candidates for queries, Eq. (4)."""
        return self.ring[self.ends[c] - self.counts[c] : self.ends[c]]

    def others(self, c: int) -> Tensor:
        """Rows of the other classes: from behind class c once around, Eq. (7) and (8)."""
        return self.ring[self.ends[c] : self.ends[c] - self.counts[c] + self.ends[-1]]


def draw(rows: Tensor, wanted: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draw `wanted` of the rows with replacement, as in lines 45, 51 and 52.

    With replacement also because there may be fewer rows than wanted (docs/fidelity.md, B13). Then
    all of them are taken, each as often as it was drawn.

    Args:
        rows: (N,), at least one.
        generator: None: all rows, each as often as is expected.
    Returns:
        (k,) rows and (k,) how often each counts, together `wanted`.
    """
    if generator is None:
        return rows, torch.full_like(rows, wanted / len(rows), dtype=torch.float64)
    size = (round(wanted),)
    index = torch.randint(len(rows), size, generator=generator, device=rows.device)
    once = torch.ones_like(index)
    if len(index) <= len(rows):
        return rows[index], once
    # More draws than rows: counting them is exact, and the product with the keys gets smaller.
    return rows, torch.zeros_like(rows).index_add_(0, index, once)


def members_of(labels: Tensor, num_classes: int) -> Tensor:
    """(C, N) bool: which labels are of every class."""
    return labels == torch.arange(num_classes, device=labels.device)[:, None]


def _draw_counts(counts: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """How many of `size` things drawn from groups of `counts` (..., G) fall on each: (..., G)."""
    ends = counts.cumsum(dim=-1)[..., None]  # (..., G, 1): where each group ends among all things
    total = counts.sum(dim=-1, keepdim=True)
    drawn = draw_below(total, (*counts.shape[:-1], size), generator)[..., None, :]
    # How many fall below each end, and from these how many between two ends.
    return (drawn < ends).sum(dim=-1).diff(dim=-1, prepend=torch.zeros_like(total))
