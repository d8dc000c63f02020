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
from t2sda.losses.numerics import at_least_float32, l2_normalize
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
CHUNK_ELEMENTS = 2**19
"""Query-negative products computed at once: bounds the memory and stays in a CPU's cache."""


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
        negative_strategy: "domain_equalized" or "union", see `negatives.sample_negatives`.
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
            query_embeddings: (b, D, h, w) student embeddings of translated images, Eq. (4).
            query_labels: (B, h, w) labels; the queries are its images from `first_image` on.
            positives: what the prototypes are means of; the teacher's source embeddings, Eq. (5).
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
            queries, is_ours = _queries_at(groups.positions, query_embeddings, first_image)
            weights = query_weights(class_weights, num_queries, self.reduction)
            if self.objective == "mse":
                losses = pull_mse(queries, prototypes[groups.classes, None])
            else:
                keys = _Keys.of(source_keys, target_keys, num_classes)
                has_negatives = negative_sampling.has_negatives(
                    keys.source, keys.target, self.negative_strategy
                )
                usable = usable & has_negatives
                losses = self._contrast(
                    queries, groups.classes, prototypes, keys, has_negatives, generator
                )
            share = (weights * usable)[groups.classes, None] * groups.multiplicity * is_ours
            return (losses * share).sum()

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

    def _contrast(
        self,
        queries: Tensor,
        classes: Tensor,
        prototypes: Tensor,
        keys: _Keys,
        has_negatives: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """(G, S) InfoNCE of every query; finite, but without meaning, where a class is skipped."""
        positives = prototypes[classes, None]  # (G, 1, D)
        if self.negative_draw == "exact":
            weights = negative_sampling.expected_negatives(
                keys.source, keys.target, self.num_negatives, self.negative_strategy
            )
            log_weights = torch.where(has_negatives[:, None], weights.log(), 0.0)
            chunks = _chunks(queries, classes, positives, len(keys.vectors))
            losses = [
                info_nce(q, k, keys.vectors, self.temperature, log_weights[c, None])
                for q, c, k in chunks
            ]
        else:
            drawn = negative_sampling.sample_negatives(
                keys.source, keys.target, self.num_negatives, self.negative_strategy, generator
            )
            chunks = _chunks(queries, classes, positives, self.num_negatives)
            losses = [
                info_nce(q, k, keys.vectors[drawn[c]], self.temperature) for q, c, k in chunks
            ]
        return torch.cat(losses)


def info_nce(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    temperature: float,
    negative_log_weights: Tensor | None = None,
) -> Tensor:
    """InfoNCE of every query, Eq. (2), in float32 or better.

    Keys are constants: only the queries get a gradient, worked out on the way forward, so that
    nothing of the size of the scores is kept for the way back.

    Args:
        queries: (..., Q, D) unit vectors.
        positives: (..., Q, D) or (..., 1, D) unit vectors.
        negatives: (..., m, D) unit vectors, shared by the Q queries.
        temperature: τ.
        negative_log_weights: (..., 1, m) log of how often each negative counts, -inf for never but
            not for all; None: once each.

    Returns:
        (..., Q).
    """
    queries = at_least_float32(queries)
    positives, negatives = positives.to(queries.dtype), negatives.to(queries.dtype)
    return _InfoNce.apply(queries, positives, negatives, temperature, negative_log_weights)


class _InfoNce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        temperature: float,
        negative_log_weights: Tensor | None,
    ) -> Tensor:
        scaled = queries / temperature
        scores = scaled @ negatives.mT  # (..., Q, m)
        if negative_log_weights is not None:
            scores += negative_log_weights
        highest = scores.amax(dim=-1, keepdim=True)
        scores = scores.sub_(highest).exp_()
        total = scores.sum(dim=-1, keepdim=True)
        # The loss is -log(e^p / (e^p + Σ e^n)) = softplus(margin).
        margin = highest + total.log() - (scaled * positives).sum(dim=-1, keepdim=True)
        if ctx.needs_input_grad[0]:
            mean_negative = (scores @ negatives) / total
            gradient = (mean_negative - positives) * (margin.sigmoid() / temperature)
            ctx.save_for_backward(gradient)
        return F.softplus(margin).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output[..., None], None, None, None, None


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


class _Keys(NamedTuple):
    """The pool that negatives are taken from: all source positions, then all target positions."""

    vectors: Tensor  # (N_s + N_t, D), unit length
    source: PositionsByClass
    target: PositionsByClass

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        source: LabelledEmbeddings | None,
        target: LabelledEmbeddings | None,
        num_classes: int,
    ) -> _Keys:
        if source is None:
            raise ValueError("InfoNCE needs negatives: give the pull loss its source_keys")
        sides = [source] if target is None else [source, target]
        vectors = l2_normalize(torch.cat([_flatten(side.embeddings) for side in sides]))
        target_labels = source.labels[:0] if target is None else target.labels
        return cls(
            vectors,
            sampling.positions_by_class(source.labels, num_classes),
            sampling.positions_by_class(target_labels, num_classes),
        )


def _chunks(
    queries: Tensor, classes: Tensor, positives: Tensor, num_negatives: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Groups of queries with their classes and positives, CHUNK_ELEMENTS products at a time."""
    groups = max(1, CHUNK_ELEMENTS // (queries.shape[1] * num_negatives))
    yield from zip(
        queries.split(groups), classes.split(groups), positives.split(groups), strict=True
    )


def _queries_at(positions: Tensor, embeddings: Tensor, first_image: int) -> tuple[Tensor, Tensor]:
    """(G, S, D) unit vectors at positions of the whole mini-batch; (G, S) which are ours.

    Normalised before they are gathered: on small grids each is drawn several times.
    """
    flat = l2_normalize(_flatten(embeddings))
    local = positions - first_image * embeddings.shape[2] * embeddings.shape[3]
    is_ours = (local >= 0) & (local < len(flat))
    rows = local.clamp(0, len(flat) - 1)
    # index_select, whose gradient is summed in order: indexing's is not, with several threads.
    return flat.index_select(0, rows.flatten()).view(*rows.shape, -1), is_ours


def _flatten(embeddings: Tensor) -> Tensor:
    """(B, D, h, w) -> (B*h*w, D), in float32 or better."""
    # Image by image: torch has a fast copy for the transpose of a matrix, but not of a stack.
    columns = at_least_float32(embeddings).flatten(2)
    return torch.cat([image.t().contiguous() for image in columns])


def _check_grid(name: str, embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.shape[1:] != labels.shape:
        raise ValueError(
            f"{name} embeddings are {tuple(embeddings.shape[1:])} and their labels "
            f"{tuple(labels.shape)}; reduce the labels with labels_on_grid"
        )
