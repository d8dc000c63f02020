"""Which keys are negatives of a class: Eq. (7), (8), (10) and domain-equalised sampling.

Negatives are shared by the queries of a class, as in Algorithm 1; the text draws m for each query
(docs/fidelity.md, B12). Those of query class c alone count: the union over all c of Eq. (10) would
hold the positives (B10). Unlabelled positions are never negatives, though Eq. (7) admits them
(B11).
"""

from __future__ import annotations

import torch
from torch import Tensor

from t2sda.losses.numerics import draw_below
from t2sda.losses.sampling import PositionsByClass
from t2sda.structures import IGNORE_INDEX

NEGATIVE_STRATEGIES = ("domain_equalized", "union", "source")


def unreliable_labels(pseudo_labels: Tensor, confidence: Tensor, threshold: Tensor) -> Tensor:
    """The candidates of Eq. (8): pseudo-labels where confidence < γ, IGNORE_INDEX elsewhere.

    Args:
        pseudo_labels, confidence: (B, h, w) on the feature grid (docs/fidelity.md, B8).
        threshold: γ of Eq. (9).
    """
    return torch.where(confidence < threshold, pseudo_labels, IGNORE_INDEX)


def sample_negatives(
    source: PositionsByClass,
    target: PositionsByClass,
    num_negatives: int,
    strategy: str,
    generator: torch.Generator,
) -> Tensor:
    """Draw m negatives for every class, with replacement, from the positions of other classes.

    - "domain_equalized" (DENPS): m/2 from the source and m/2 from the target; all m from the other
      domain where one has no candidate (docs/fidelity.md, B35).
    - "union": m from the candidates of both domains alike.
    - "source": m from the source, whatever the target offers.

    Args:
        source: labelled source positions, of the whole mini-batch.
        target: unreliable target positions; without any, all m come from the source.
        num_negatives: m; of an odd m the target gives the larger half.
    Returns:
        (C, m) int64 rows of the key pool, which is all source positions followed by all target
        positions. Meaningless for a class without candidates, see `has_negatives`.
    """
    shape = (len(source.counts), num_negatives)
    source_count, target_count = _candidates(source, target, strategy)
    if strategy == "domain_equalized":
        first_half = torch.arange(num_negatives, device=source_count.device) < num_negatives // 2
        in_source = (first_half & (source_count > 0)) | (target_count == 0)
        drawn = draw_below(torch.where(in_source, source_count, target_count), shape, generator)
    else:
        drawn = draw_below(source_count + target_count, shape, generator)
        in_source = drawn < source_count
        drawn = torch.where(in_source, drawn, drawn - source_count)
    num_source = len(source.order)
    pool = torch.cat([source.order, num_source + target.order])
    source_rank, target_rank = _rank_of_others(source, drawn), _rank_of_others(target, drawn)
    rank = torch.where(in_source, source_rank, num_source + target_rank)
    return pool[rank.clamp(max=len(pool) - 1)]


def expected_negatives(
    source: PositionsByClass, target: PositionsByClass, num_negatives: int, strategy: str
) -> Tensor:
    """How often `sample_negatives` draws every key, in expectation; sums to m over a class.

    The exact mode of docs/fidelity.md, B13: all candidates at once. Its loss is the limit of
    drawing ever more negatives, each weighing m / (number drawn), not the mean of sampled losses.

    Returns:
        (C, N_s + N_t) float32; zeros for a class without candidates.
    """
    source_count, target_count = _candidates(source, target, strategy)
    if strategy == "domain_equalized":
        from_source = torch.where(source_count > 0, num_negatives // 2, 0)
        from_source = torch.where(target_count > 0, from_source, num_negatives)
        from_target = num_negatives - from_source
    else:
        total = (source_count + target_count).clamp(min=1)
        from_source = num_negatives * source_count / total
        from_target = num_negatives * target_count / total
    source_share = from_source / source_count.clamp(min=1)
    target_share = from_target / target_count.clamp(min=1)
    return torch.cat([_is_other(source) * source_share, _is_other(target) * target_share], dim=1)


def has_negatives(source: PositionsByClass, target: PositionsByClass, strategy: str) -> Tensor:
    """(C,) bool: whether a class has a candidate in some domain (docs/fidelity.md, B35)."""
    source_count, target_count = _candidates(source, target, strategy)
    return (source_count + target_count).squeeze(1) > 0


def _candidates(
    source: PositionsByClass, target: PositionsByClass, strategy: str
) -> tuple[Tensor, Tensor]:
    """(C, 1) each: how many positions of either domain may become negatives of a class."""
    if strategy not in NEGATIVE_STRATEGIES:
        raise ValueError(
            f"negative strategy is '{strategy}'; known: {', '.join(NEGATIVE_STRATEGIES)}"
        )
    target_count = _others(target)[:, None]
    if strategy == "source":
        target_count = torch.zeros_like(target_count)
    return _others(source)[:, None], target_count


def _others(positions: PositionsByClass) -> Tensor:
    """(C,) number of positions that have another class."""
    return positions.total - positions.counts


def _rank_of_others(positions: PositionsByClass, index: Tensor) -> Tensor:
    """(C, m) where the `index`-th position of another class lies in `positions.order`.

    The positions of other classes are the sorted ones without class c's block: step over it.
    """
    begins = positions.starts[:-1, None]
    return index + torch.where(index >= begins, positions.counts[:, None], 0)


def _is_other(positions: PositionsByClass) -> Tensor:
    """(C, N) bool: whether a position has a class, but another than the row's."""
    rank = torch.empty_like(positions.order)
    rank[positions.order] = torch.arange(len(rank), device=rank.device)
    starts = positions.starts[:, None]
    return (rank < starts[-1]) & ((rank < starts[:-1]) | (rank >= starts[1:]))
