"""Which positions of the feature grid become queries: Eq. (4), (11) and section 3.3.

Everything here has shapes that depend on sizes alone, never on the labels, so nothing waits for a
GPU: what a class does not fill is padding of weight 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from t2sda.losses.numerics import draw_below, reads_are_free
from t2sda.structures import FeatureSpec

QUERY_STRATEGIES = ("cbqs", "ceqs", "uniform")
MAX_GROUP_SIZE = 64
"""Queries of one class side by side: large enough for a matrix product, small against padding."""


class PositionsByClass(NamedTuple):
    """Grid positions sorted by class, so that the ones of a class lie side by side."""

    order: Tensor
    """(N,) int64 positions in (B, h, w) flattened; those without a class come last."""
    starts: Tensor
    """(C + 1,) int64 where each class begins in `order`; the last one is where the classes end."""

    @property
    def counts(self) -> Tensor:
        """(C,) int64 positions of every class."""
        return self.starts.diff()

    @property
    def total(self) -> Tensor:
        """Scalar int64: positions that have a class."""
        return self.starts[-1]


class QueryGroups(NamedTuple):
    """Queries in groups of one class each, so that a group shares its prototype and negatives."""

    classes: Tensor
    """(G,) int64 class of every group."""
    positions: Tensor
    """(G, S) int64 positions in (B, h, w) flattened."""
    multiplicity: Tensor
    """(G, S) float how often each counts; over a class they sum to n_q(c). 0 is padding."""


def labels_on_grid(labels: Tensor, spec: FeatureSpec) -> Tensor:
    """Labels at the resolution of the features: those of the pixels at the cells' centres.

    Eq. (4) to (8) index labels and features by the same j (docs/fidelity.md, B7). Where a cell's
    centre is depends on the network (docs/fidelity.md, E7).

    Args:
        labels: (B, H, W) of any dtype: labels, confidences (docs/fidelity.md, B8) or masks.
        spec: of the features.
    Returns:
        (B, ceil(H / stride), ceil(W / stride)) of the same dtype.
    """
    row, column = (_cell_centres(side, spec).to(labels.device) for side in labels.shape[1:])
    return labels[:, row[:, None], column]


def _cell_centres(side: int, spec: FeatureSpec) -> Tensor:
    """Pixel at the centre of every cell along a side; the last cell's may lie beyond the image."""
    cells = torch.arange(-(-side // spec.stride))
    return (cells * spec.stride + int(spec.offset)).clamp(max=side - 1)


def positions_by_class(labels: Tensor, num_classes: int) -> PositionsByClass:
    """Sort the positions of (B, h, w) labels by class; labels >= num_classes are left out."""
    ordered, order = labels.flatten().sort(stable=True)
    classes = torch.arange(num_classes + 1, device=labels.device)
    return PositionsByClass(order, torch.searchsorted(ordered, classes))


def class_distribution(class_counts: Tensor) -> Tensor:
    """p̂ of Eq. (11): (C,) shares of the labelled positions; zeros where there is none."""
    return class_counts / class_counts.sum().clamp(min=1)


def num_queries(
    class_counts: Tensor, queries_per_class: int, strategy: str, generator: torch.Generator
) -> Tensor:
    """n_q(c) of section 3.3: how many queries every class gives.

    - "cbqs": ceil(C·p̂(c)·n), class-balanced as published; in integers, so that no rounding error
      is rounded up.
    - "ceqs": n for every class that is there.
    - "uniform": C·n positions drawn from all alike, whatever their class; the reading we give to
      "without CBQS" (docs/fidelity.md, B32).

    Args:
        class_counts: (C,) int64 labelled positions of every class, of the whole mini-batch.
        queries_per_class: n.
        generator: used by "uniform" alone.
    Returns:
        (C,) int64; 0 for absent classes (docs/fidelity.md, B5), together at most C·n + C.
    """
    if strategy != "uniform":
        return expected_num_queries(class_counts, queries_per_class, strategy)
    total = class_counts.sum().clamp(min=1)
    drawn = draw_below(total, (len(class_counts) * queries_per_class,), generator).sort().values
    return torch.searchsorted(drawn, class_counts.cumsum(0)).diff(prepend=total.new_zeros(1))


def expected_num_queries(class_counts: Tensor, queries_per_class: int, strategy: str) -> Tensor:
    """(C,) the expectation of `num_queries`; "uniform" alone is drawn, and has C·n·p̂(c)."""
    budget = len(class_counts) * queries_per_class
    if strategy == "cbqs":
        total = class_counts.sum().clamp(min=1)
        return (class_counts * budget + total - 1) // total
    if strategy == "ceqs":
        return torch.where(class_counts > 0, queries_per_class, 0)
    if strategy == "uniform":
        return class_distribution(class_counts) * budget
    raise ValueError(f"query strategy is '{strategy}'; known: {', '.join(QUERY_STRATEGIES)}")


def sample_queries(
    positions: PositionsByClass,
    num_queries: Tensor,
    max_queries: int,
    generator: torch.Generator,
) -> QueryGroups:
    """Draw n_q(c) positions of every class, as in lines 45-46 of Algorithm 1: with replacement.

    With replacement also because n_q(c) may exceed the class's positions (docs/fidelity.md, B13).
    On a CPU, and on a grid smaller than `max_queries`, what was drawn several times becomes one
    query that counts so often, which is the same loss for less work.

    Args:
        num_queries: (C,) int64 n_q(c), 0 for absent classes.
        max_queries: upper bound of their sum; it fixes the shapes.
    """
    classes, index = _groups(num_queries, max_queries)
    filled = (index < num_queries[classes, None]).float()
    drawn = draw_below(positions.counts[classes, None], tuple(index.shape), generator)
    groups = QueryGroups(classes, _positions(positions, classes, drawn), filled)
    if len(positions.order) >= max_queries and not reads_are_free(classes):
        return groups
    times = filled.new_zeros(len(positions.order))
    times.index_add_(0, groups.positions.flatten(), filled.flatten())
    every = every_query(positions, num_queries)
    return every._replace(multiplicity=times[every.positions] * (every.multiplicity > 0))


def every_query(positions: PositionsByClass, num_queries: Tensor) -> QueryGroups:
    """The expectation of `sample_queries`: each position of a class n_q(c) / (its count) times.

    The exact mode of docs/fidelity.md, B13: without sampling noise, and cheaper on small grids.

    Args:
        num_queries: (C,) n_q(c), see `expected_num_queries`.
    """
    classes, index = _groups(positions.counts, len(positions.order))
    counts = positions.counts[classes, None]
    multiplicity = (num_queries[classes, None] / counts.clamp(min=1)) * (index < counts)
    return QueryGroups(classes, _positions(positions, classes, index), multiplicity)


def _groups(sizes: Tensor, max_total: int) -> tuple[Tensor, Tensor]:
    """Cut classes of `sizes` members, together at most `max_total`, into groups of one class.

    Returns:
        (G,) the class of every group and (G, S) the members' numbers within their class; numbers
        from the class's size on are padding. G = max_total // S + C groups are always enough.
    """
    num_classes, device = len(sizes), sizes.device
    group_size = min(MAX_GROUP_SIZE, -(-max_total // num_classes))
    groups_of_class = (sizes + group_size - 1) // group_size
    ends = groups_of_class.cumsum(0)
    group = torch.arange(max_total // group_size + num_classes, device=device)
    classes = torch.searchsorted(ends, group, right=True).clamp(max=num_classes - 1)
    group_in_class = group - (ends - groups_of_class)[classes]
    member = torch.arange(group_size, device=device)
    return classes, group_in_class[:, None] * group_size + member


def _positions(positions: PositionsByClass, classes: Tensor, index: Tensor) -> Tensor:
    """The `index`-th position of each group's class; any position where index is padding."""
    rank = positions.starts[classes, None] + index
    return positions.order[rank.clamp(max=len(positions.order) - 1)]
