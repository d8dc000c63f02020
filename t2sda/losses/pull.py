"""The pull loss, Eq. (2) to (10): pseudo-target embeddings are pulled to source prototypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from t2sda.losses import negatives as negative_sampling
from t2sda.losses import sampling
from t2sda.losses.info_nce import info_nce
from t2sda.losses.numerics import at_least_float32, l2_normalize, reads_are_free
from t2sda.losses.sampling import PositionsByClass, QueryGroups

CHOICES = {
    "objective": ("info_nce", "mse"),
    "reduction": ("class_mean", "query_sum"),
    "query_strategy": sampling.QUERY_STRATEGIES,
    "negative_strategy": negative_sampling.NEGATIVE_STRATEGIES,
    "query_draw": ("replacement", "exact"),
    "negative_draw": ("replacement", "exact"),
    "prototype_norm": ("after", "before", "both"),
}
CACHE_LINE = 16
"""Floats in 64 bytes."""
CHUNK_GROUPS = 8
"""Groups whose negatives are gathered at once where sizes may not follow the values."""


class LabelledEmbeddings(NamedTuple):
    """A teacher's embeddings and the classes they stand for."""

    embeddings: Tensor
    """(B, D, h, w) projector output."""
    labels: Tensor
    """(B, h, w) int64 in [0, C) or IGNORE_INDEX, on the grid of the embeddings."""


@dataclass(frozen=True)
class PullLoss:
    """L_pull, Eq. (3), with the sampling in front of it.

    Args:
        temperature: τ.
        queries_per_class: n, the base number of queries.
        num_negatives: m, shared by the queries of a class.
        objective: "info_nce" (Eq. 2) or "mse", see `info_nce` and `pull_mse`.
        reduction: "class_mean" or "query_sum", see `query_weights`.
        query_strategy: "cbqs", "ceqs" or "uniform", see `sampling.num_queries`.
        negative_strategy: "domain_equalized", "union" or "source", see
            `negatives.sample_negatives`.
        query_draw, negative_draw: "replacement" as published, or "exact": every position, weighted
            by how often it would be drawn (docs/fidelity.md, B13).
        prototype_norm: "after", "before" or "both", see `class_prototypes`.
    """

    temperature: float = 0.2
    queries_per_class: int = 128
    num_negatives: int = 1024
    objective: str = "info_nce"
    reduction: str = "class_mean"
    query_strategy: str = "cbqs"
    negative_strategy: str = "domain_equalized"
    query_draw: str = "replacement"
    negative_draw: str = "replacement"
    prototype_norm: str = "after"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
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
        if self.objective == "mse":
            return ()
        return ("source",) if self.negative_strategy == "source" else ("source", "target")

    def __call__(
        self,
        query_embeddings: Tensor,
        query_labels: Tensor,
        positives: LabelledEmbeddings,
        source_keys: LabelledEmbeddings | None,
        target_keys: LabelledEmbeddings | None,
        class_weights: Tensor,
        generator: torch.Generator,
        first_image: int = 0,
    ) -> Tensor:
        """The loss; only `query_embeddings` get a gradient.

        On several ranks everything but the first argument is of the whole mini-batch, gathered, and
        the generators are alike. The result is then this rank's share: the shares of all ranks add
        up to the loss of the whole mini-batch.

        Args:
            query_embeddings: (b, D, h, w) student embeddings, of translated images in T2S-DA,
                Eq. (4).
            query_labels: (B, h, w) labels; the queries are its images from `first_image` on.
            positives: what the prototypes are means of, Eq. (5); in T2S-DA the teacher's source
                embeddings.
            source_keys: candidates for negatives, Eq. (7); the teacher's source embeddings. None
                with MSE, which has no negatives.
            target_keys: candidates for negatives, Eq. (8); the teacher's target embeddings with
                their `unreliable_labels`. None: no target (docs/fidelity.md, B26).
            class_weights: (C,) w* of Eq. (3); 1/C each without re-weighting.
        Returns:
            Scalar. A class without queries, prototype or negatives is skipped
            (docs/fidelity.md, B5); where none is left, the loss is 0 and still connected to the
            graph.
        """
        _check_grid("query", query_embeddings[0], query_labels[0])
        num_classes = len(class_weights)
        with torch.autocast(device_type=query_embeddings.device.type, enabled=False):
            labels = sampling.positions_by_class(query_labels, num_classes)
            prototypes, usable = _prototypes(positives, num_classes, self.prototype_norm)
            groups, num_queries = self._draw_queries(labels, generator)
            weights = query_weights(class_weights, num_queries, self.reduction)
            negatives = None
            if self.objective == "info_nce":
                negatives = self._negatives(source_keys, target_keys, num_classes, generator)
                usable = usable & negatives.exist
            rows = groups.positions - first_image * query_labels[0].numel()
            ours = (rows >= 0) & (rows < len(query_embeddings) * query_labels[0].numel())
            share = (weights * usable)[groups.classes, None] * groups.multiplicity * ours
            parts = list(_parts(groups._replace(positions=rows * ours, multiplicity=share)))
            return self._weighted_sum(parts, query_embeddings, prototypes, negatives)

    def _weighted_sum(
        self,
        parts: list[QueryGroups],
        query_embeddings: Tensor,
        prototypes: Tensor,
        negatives: _Negatives | None,
    ) -> Tensor:
        """Σ multiplicity · loss over the queries of all parts."""
        if not parts:
            return at_least_float32(query_embeddings[:0]).sum()
        sizes = [part.positions.numel() for part in parts]
        rows = torch.cat([part.positions.flatten() for part in parts])
        sums = []
        for part, queries in zip(
            parts, _UnitRows.apply(query_embeddings, rows).split(sizes), strict=True
        ):
            queries = queries.view(*part.positions.shape, -1)
            positives = prototypes[part.classes].unsqueeze(-2)  # (..., 1, D)
            if negatives is None:
                losses = pull_mse(queries, positives)
            else:
                keys, log_weights = negatives.of(part.classes)
                losses = info_nce(queries, positives, keys, self.temperature, log_weights)
            sums.append((losses * part.multiplicity).sum())
        return torch.stack(sums).sum()

    def _draw_queries(
        self, labels: PositionsByClass, generator: torch.Generator
    ) -> tuple[QueryGroups, Tensor]:
        """The queries in groups, and n_q(c)."""
        if self.query_draw == "exact":
            num_queries = sampling.expected_num_queries(
                labels.counts, self.queries_per_class, self.query_strategy
            )
            return sampling.every_query(labels, num_queries), num_queries
        num_queries = sampling.num_queries(
            labels.counts, self.queries_per_class, self.query_strategy, generator
        )
        max_queries = len(num_queries) * (self.queries_per_class + 1)
        groups = sampling.sample_queries(labels, num_queries, max_queries, generator)
        return groups, num_queries

    def _negatives(
        self,
        source: LabelledEmbeddings | None,
        target: LabelledEmbeddings | None,
        num_classes: int,
        generator: torch.Generator,
    ) -> _Negatives:
        if source is None:
            raise ValueError("InfoNCE needs negatives: give the pull loss its source_keys")
        target_labels = source.labels[:0] if target is None else target.labels
        sides = (
            sampling.positions_by_class(source.labels, num_classes),
            sampling.positions_by_class(target_labels, num_classes),
        )
        exist = negative_sampling.has_negatives(*sides, self.negative_strategy)
        pool = _unit_pool([source] if target is None else [source, target])
        if self.negative_draw == "exact":
            times = negative_sampling.expected_negatives(
                *sides, self.num_negatives, self.negative_strategy
            )
            return _Negatives(pool, exist, None, torch.where(exist[:, None], times.log(), 0.0))
        drawn = negative_sampling.sample_negatives(
            *sides, self.num_negatives, self.negative_strategy, generator
        )
        return _Negatives(pool, exist, drawn, None)


def pull_mse(queries: Tensor, positives: Tensor) -> Tensor:
    """Squared distance of every query to its positive, ||q - k+||^2: (..., Q, D) -> (..., Q)."""
    return (at_least_float32(queries) - positives).square().sum(dim=-1)


def query_weights(class_weights: Tensor, num_queries: Tensor, reduction: str) -> Tensor:
    """What one query of every class weighs in Eq. (3).

    - "class_mean": w*_c / n_q(c), as Algorithm 1 with the mean of `F.cross_entropy`; n_q(c) then
      changes the variance only. No further 1/C, since w* sums to 1.
    - "query_sum": w*_c / C, the letter of Eq. (3). With uniform w* this is n / C times larger
      (docs/fidelity.md, B1).

    Args:
        class_weights: (C,) w*; not normalised again over the classes present
            (docs/fidelity.md, B4).
        num_queries: (C,) n_q(c) of the whole mini-batch, drawn or expected.
    Returns:
        (C,); 0 for a class without queries.
    """
    if reduction == "query_sum":
        divisors = torch.full_like(num_queries, len(class_weights))
    else:
        divisors = torch.where(num_queries > 0, num_queries, 1)
    return torch.where(num_queries > 0, at_least_float32(class_weights) / divisors, 0)


def class_prototypes(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean source embedding of every class, Eq. (5).

    Args:
        embeddings: (B, D, h, w) teacher projector output on source images.
        labels: (B, h, w) int64 in [0, num_classes) or IGNORE_INDEX.
    Returns:
        (num_classes, D); the row of a class absent from the batch is NaN.
    Raises:
        ValueError: if labels are not at the resolution of embeddings.
    """
    sums, counts = class_embedding_sums(embeddings, labels, num_classes)
    return sums / counts[:, None]


@torch.no_grad()
def class_embedding_sums(
    embeddings: Tensor, labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of Eq. (5), to be added over ranks: (C, D) and (C,)."""
    _check_grid("positive", embeddings[0], labels[0])
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    members = labels.flatten(1)[:, None] == classes  # (B, C, h*w)
    columns = at_least_float32(embeddings).flatten(2)  # (B, D, h*w)
    sums = (members.to(columns.dtype) @ columns.mT).sum(dim=0)
    return sums, members.sum(dim=(0, 2))


@torch.no_grad()
def _prototypes(
    positives: LabelledEmbeddings, num_classes: int, prototype_norm: str
) -> tuple[Tensor, Tensor]:
    """(C, D) positive keys, Eq. (5) and (6), zeros for an absent class; (C,) which are there.

    Raw embeddings are averaged and the mean is normalised ("after"), as in the equations; Algorithm
    1 normalises the embeddings and leaves the mean as it is ("before") (docs/fidelity.md, B6).
    """
    embeddings, labels = positives
    if prototype_norm != "after":
        embeddings = l2_normalize(at_least_float32(embeddings).movedim(1, -1)).movedim(-1, 1)
    sums, counts = class_embedding_sums(embeddings, labels, num_classes)
    means = sums / counts.clamp(min=1)[:, None]
    return (means if prototype_norm == "before" else l2_normalize(means)), counts > 0


class _Negatives(NamedTuple):
    """The keys that the queries of every class are pushed away from."""

    pool: Tensor  # (N_s + N_t, D) unit vectors: all source positions, then all target positions
    exist: Tensor  # (C,) bool
    drawn: Tensor | None  # (C, m) rows of the pool; None: all of them, weighted
    log_weights: Tensor | None  # (C, N_s + N_t)

    def of(self, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        """(..., m, D) keys of classes of any shape, and their log weights (..., 1, m)."""
        if self.drawn is None:
            assert self.log_weights is not None
            return self.pool, self.log_weights[classes].unsqueeze(-2)
        rows = self.drawn[classes]
        return self.pool.index_select(0, rows.flatten()).view(*rows.shape, -1), None


def _parts(groups: QueryGroups) -> Iterator[QueryGroups]:
    """The queries in parts that share their negatives: classes (...), the rest (..., S).

    Where sizes may follow values, a part is one class without padding: ((), (S,)). Elsewhere it is
    a run of groups with their padding: ((G,), (G, S)).
    """
    if not reads_are_free(groups.classes):
        runs = (values.split(CHUNK_GROUPS) for values in groups)
        yield from (QueryGroups(*part) for part in zip(*runs, strict=True))
        return
    counted = groups.multiplicity != 0
    classes = groups.classes[:, None].expand_as(counted)[counted]
    present, sizes = classes.unique_consecutive(return_counts=True)
    positions = groups.positions[counted].split(sizes.tolist())
    multiplicity = groups.multiplicity[counted].split(sizes.tolist())
    yield from (QueryGroups(*part) for part in zip(present, positions, multiplicity, strict=True))


class _UnitRows(torch.autograd.Function):
    """(B, D, h, w), (n,) rows of (B, h, w) flattened → (n, D) unit vectors; zero stays zero.

    In closed form, as only the rows that are asked for need a norm and a gradient.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, rows: Tensor) -> Tensor:
        columns = at_least_float32(embeddings).flatten(2).transpose(0, 1).flatten(1)  # (D, B*h*w)
        picked = columns.gather(1, rows.expand(len(columns), -1)).t().contiguous()
        norms = torch.linalg.vector_norm(picked, dim=-1, keepdim=True)
        norms.masked_fill_(norms == 0, 1.0)
        unit = picked.div_(norms)
        ctx.save_for_backward(unit, norms, rows)
        ctx.shape, ctx.dtype = embeddings.shape, embeddings.dtype
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        unit, norms, rows = ctx.saved_tensors
        along = (grad_output * unit).sum(dim=-1, keepdim=True)
        images, channels, height, width = ctx.shape
        gradient = unit.new_zeros(images * height * width, channels)
        # index_add_ sums in order on a CPU; indexing's own gradient does not, with several threads.
        gradient.index_add_(0, rows, (grad_output - along * unit) / norms)
        columns = gradient.new_empty(images, channels, height * width)
        for image, part in zip(columns, gradient.split(height * width), strict=True):
            image.copy_(part.t())  # what comes before the projector wants its own layout
        return columns.view(ctx.shape).to(ctx.dtype), None


@torch.no_grad()
def _unit_pool(sides: list[LabelledEmbeddings]) -> Tensor:
    """(N, D) unit vectors of all positions of all sides."""
    pool = _flatten(*(side.embeddings for side in sides))
    norms = torch.linalg.vector_norm(pool, dim=-1, keepdim=True)
    return pool.div_(norms.masked_fill_(norms == 0, 1.0))


def _flatten(*embeddings: Tensor) -> Tensor:
    """(B, D, h, w) each -> (the sum of all B*h*w, D), a copy in float32 or better."""
    images = [image for one in embeddings for image in at_least_float32(one).flatten(2)]
    rows = images[0].new_empty(sum(image.shape[1] for image in images), images[0].shape[0])
    # Image by image: torch has a fast copy for the transpose of a matrix, but not of a stack. Not
    # in place: columns that lie a power of two apart would share the lines of a CPU's cache.
    for part, image in zip(rows.split([image.shape[1] for image in images]), images, strict=True):
        spread = F.pad(image, (0, CACHE_LINE))
        part.copy_(spread[:, : image.shape[1]].t())
    return rows


def _check_grid(name: str, embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.shape[1:] != labels.shape:
        raise ValueError(
            f"{name} embeddings are {tuple(embeddings.shape[1:])} and their labels "
            f"{tuple(labels.shape)}; reduce the labels with labels_on_grid"
        )
