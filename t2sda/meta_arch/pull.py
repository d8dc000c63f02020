"""The pull loss on a student's forward: its settings, and which embeddings are paired.

A pairing is data: the pass that carries the loss says which images the queries come from,
T2SDA.POSITIVES which of the teacher's embeddings they are pulled to, and T2SDA.NEGATIVE_STRATEGY
which they are pushed away from (Table S3).
"""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import SCHEMA, Field
from t2sda.distributed import (
    CumulativeClassMeans,
    gather_over_ranks,
    own_share,
    rank,
    world_size,
)
from t2sda.losses.pseudo_labels import confidence_threshold, unreliable_labels
from t2sda.losses.pull import CHOICES, Keys, PullLoss, averaged_embeddings, normed_means
from t2sda.losses.sampling import labels_on_grid
from t2sda.meta_arch import objectives  # noqa: F401  # registers those of the paper
from t2sda.meta_arch.base import BuildContext, Reads, pass_classes
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import Features
from t2sda.registry import OBJECTIVES
from t2sda.structures import IGNORE_INDEX, TARGET_PROBS, FeatureSpec, Step, TeacherOutput, View


def pulls(cfg: CfgNode) -> bool:
    """Whether some pass carries the pull loss."""
    return any(cls.pulls for cls in pass_classes(cfg).values())


def contrasts(cfg: CfgNode) -> bool:
    """Whether the pull loss has negatives."""
    return pulls(cfg) and OBJECTIVES.get(cfg.T2SDA.OBJECTIVE).contrasts


SCHEMA.declare(
    "T2SDA",
    {
        "PULL_WEIGHT": Field(0.1, "λ, weight of the pull loss", low=0.0, exclusive_low=True),
        "OBJECTIVE": Field(
            "info_nce", "Eq. (2), the squared distance, or one of a plugin", choices=OBJECTIVES
        ),
        "REDUCTION": Field(
            "class_mean",
            "reading of Eq. (3): mean over a class's queries as in Algorithm 1, or the sum over "
            "them divided by C as printed, which is n / C times larger",
            choices=CHOICES["reduction"],
        ),
        "POSITIVES": Field(
            "source",
            "teacher's embeddings that the prototypes are means of, Eq. (5)",
            choices=("source", "target", "translated"),
        ),
        "PROTOTYPES": Field(
            "batch",
            "means of the mini-batch, Eq. (5), or of all steps so far, as in SePiCo: a class that "
            "is absent from a mini-batch has its prototype still",
            choices=("batch", "running"),
        ),
        "PROTOTYPE_NORM": Field(
            "after",
            "embeddings are normalised after the mean of Eq. (5), before it as in Algorithm 1, or "
            "both",
            choices=CHOICES["prototype_norm"],
        ),
        "QUERY_DRAW": Field(
            "replacement",
            "queries drawn with replacement as published, or every position, weighted by how often "
            "it would be drawn",
            choices=CHOICES["query_draw"],
        ),
    },
    when=pulls,
    when_text="META_ARCH.PASSES holds pull, source_pull or translated_pull",
)
SCHEMA.declare(
    "T2SDA",
    {
        "QUERIES_PER_CLASS": Field(128, "n, base number of queries of a class", low=1),
        "QUERY_STRATEGY": Field(
            "cbqs",
            "queries by a class's share of the labels (CBQS), n of every class (CEQS), or all "
            "positions alike",
            choices=CHOICES["query_strategy"],
        ),
    },
    # The mean over all queries of a class is the same for any number of them.
    when=lambda cfg: (
        pulls(cfg) and (cfg.T2SDA.QUERY_DRAW, cfg.T2SDA.REDUCTION) != ("exact", "class_mean")
    ),
    when_text="a pass pulls, unless T2SDA.QUERY_DRAW is exact and T2SDA.REDUCTION is class_mean",
)
SCHEMA.declare(
    "T2SDA",
    {
        "TEMPERATURE": Field(0.2, "τ of Eq. (2)", low=0.0, exclusive_low=True),
        "NUM_NEGATIVES": Field(1024, "m, negatives of a class, shared by its queries", low=2),
        "NEGATIVE_STRATEGY": Field(
            "domain_equalized",
            "half of the negatives from each domain (DENPS), all from the union of both, or from "
            "the source alone",
            choices=CHOICES["negative_strategy"],
        ),
        "NEGATIVE_DRAW": Field(
            "replacement",
            "negatives drawn with replacement as published, or all of them, together weighing m",
            choices=CHOICES["negative_draw"],
        ),
    },
    when=contrasts,
    when_text="a pass pulls and T2SDA.OBJECTIVE has negatives, as info_nce",
)
SCHEMA.declare(
    "T2SDA",
    {
        "UNRELIABLE_FRACTION": Field(
            0.5,
            "α of Eq. (9): share of target positions, the least confident, that serve as negatives",
            low=0.0,
            high=1.0,
        ),
    },
    when=lambda cfg: contrasts(cfg) and cfg.T2SDA.NEGATIVE_STRATEGY != "source",
    when_text="a pass pulls and its negatives come from the target too",
)


@SCHEMA.check
def one_pull_loss(cfg: CfgNode) -> str | None:
    """Two passes that pull would write one loss twice."""
    listed = [name for name, cls in pass_classes(cfg).items() if cls.pulls]
    if len(listed) < 2:
        return None
    return f"META_ARCH.PASSES: {', '.join(listed)} all carry the pull loss; list one of them"


def pull_loss_of(cfg: CfgNode) -> PullLoss:
    """The loss with its sampling, of T2SDA."""
    return PullLoss(
        temperature=cfg.T2SDA.TEMPERATURE,
        queries_per_class=cfg.T2SDA.QUERIES_PER_CLASS,
        num_negatives=cfg.T2SDA.NUM_NEGATIVES,
        objective=OBJECTIVES.get(cfg.T2SDA.OBJECTIVE).from_config(cfg),
        reduction=cfg.T2SDA.REDUCTION,
        query_strategy=cfg.T2SDA.QUERY_STRATEGY,
        negative_strategy=cfg.T2SDA.NEGATIVE_STRATEGY,
        query_draw=cfg.T2SDA.QUERY_DRAW,
        negative_draw=cfg.T2SDA.NEGATIVE_DRAW,
        prototype_norm=None if cfg.T2SDA.PROTOTYPES == "running" else cfg.T2SDA.PROTOTYPE_NORM,
    )


def read_domains(positives: str, pull_loss: PullLoss) -> frozenset[str]:
    """Domains of the teacher's embeddings that are read."""
    return frozenset({positives, *pull_loss.negative_domains})


class Pull(nn.Module):
    """λ L_pull, Eq. (3), of the embeddings of source-labelled images; statistics of all ranks.

    Args:
        pull_loss: with its sampling.
        pull_weight: λ.
        positives: domain of the teacher's embeddings behind the prototypes. With "target" every
            position counts by its pseudo-label, however unsure the teacher is.
        unreliable_fraction: α.
        prototype_norm: of the running prototypes; `pull_loss` has that of the mini-batch's.
        running: means behind the prototypes of all steps so far; None: those of the mini-batch.
    """

    def __init__(
        self,
        pull_loss: PullLoss,
        pull_weight: float,
        positives: str,
        unreliable_fraction: float,
        prototype_norm: str = "after",
        running: CumulativeClassMeans | None = None,
    ) -> None:
        super().__init__()
        self.prototype_norm = prototype_norm
        self.running = running
        self.pull_loss = pull_loss
        self.pull_weight = pull_weight
        self.positives = positives
        self.unreliable_fraction = unreliable_fraction

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Pull:
        """Read T2SDA."""
        is_running = cfg.T2SDA.PROTOTYPES == "running"
        sizes = (context.num_classes, cfg.MODEL.PROJECTOR.CHANNELS)
        return cls(
            pull_loss_of(cfg),
            cfg.T2SDA.PULL_WEIGHT,
            cfg.T2SDA.POSITIVES,
            cfg.T2SDA.UNRELIABLE_FRACTION,
            cfg.T2SDA.PROTOTYPE_NORM,
            CumulativeClassMeans(*sizes) if is_running else None,
        )

    @property
    def domains(self) -> frozenset[str]:
        """Domains of the teacher's embeddings that are read."""
        return read_domains(self.positives, self.pull_loss)

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """What is read beside the queries: embeddings, and pseudo-labels of target keys."""
        domains = read_domains(cfg.T2SDA.POSITIVES, pull_loss_of(cfg))
        embeddings = {View(domain, "embeddings") for domain in domains}
        return Reads(views=embeddings | ({TARGET_PROBS} if "target" in domains else set()))

    def losses(self, student: Branch, features: Features, step: Step) -> dict[str, Tensor]:
        """Returns `loss_pull`.

        Args:
            features: of the source or the translated images of this rank.
        """
        embeddings = student.embed(features)  # (b, 256, h, w)
        spec = student.embedding_spec
        labels = labels_on_grid(step.batch.source_label, spec)  # (b, h, w)
        queries = Keys.from_grid(embeddings, labels)  # (b h w, 256) and (b h w,)
        keys = self._keys(step, labels, spec)
        negatives = self.pull_loss.negative_domains
        # Queries are drawn by the labels of all ranks, so that n_q(c) is that of the mini-batch;
        # this rank's embeddings are the rows from `first_row` on, and only they carry a gradient.
        share = self.pull_loss(
            queries.embeddings,
            gather_over_ranks(queries.labels),
            positives=self._positives(keys[self.positives], step),
            source_keys=keys["source"] if "source" in negatives else None,
            target_keys=self._unreliable(step, keys["target"], spec)
            if "target" in negatives
            else None,
            class_weights=_class_weights(step, student.model.num_classes),
            generator=step.streams.generator("pull", embeddings.device),
            first_row=rank() * len(queries.labels),
        )
        # The shares of the ranks add up to the loss; gradients are averaged over the ranks.
        return {"loss_pull": self.pull_weight * world_size() * share}

    def _keys(self, step: Step, source_labels: Tensor, spec: FeatureSpec) -> dict[str, Keys]:
        """The teacher's embeddings by domain, of all ranks; those of the target by pseudo-label."""
        teacher = _teacher(step)
        keys = {}
        for domain in sorted(self.domains):  # ranks gather in one order
            embeddings = teacher[View(domain, "embeddings")]
            labels = source_labels  # the translated images' too: translation moves no pixel
            if domain == "target":
                labels = labels_on_grid(teacher.pseudo_labels, spec)
            flat = Keys.from_grid(embeddings, labels)
            keys[domain] = Keys(*(gather_over_ranks(part) for part in flat))
        return keys

    def _positives(self, keys: Keys, step: Step) -> Keys:
        """What the prototypes are means of; running ones as they are, this step's keys in them."""
        if self.running is None:
            return keys
        own = own_share(len(keys.labels) // world_size())
        values = averaged_embeddings(keys.embeddings[own], self.prototype_norm)
        self.running.update_(values, keys.labels[own], last=step.is_last_micro_step)
        known, means = self.running.known, self.running.means
        classes = torch.arange(len(known), device=known.device).where(known, IGNORE_INDEX)
        return Keys(normed_means(means, self.prototype_norm), classes)

    def _unreliable(self, step: Step, target: Keys, spec: FeatureSpec) -> Keys:
        """The candidates of Eq. (8), below γ of Eq. (9)."""
        # γ is a percentile over the mini-batch, not over each image (docs/fidelity.md, B9).
        confidence = gather_over_ranks(labels_on_grid(_teacher(step).confidence, spec).flatten())
        threshold = confidence_threshold(confidence, self.unreliable_fraction)
        return target._replace(labels=unreliable_labels(target.labels, confidence, threshold))


def _teacher(step: Step) -> TeacherOutput:
    assert step.teacher is not None, "a pass that pulls needs a teacher"
    return step.teacher


def _class_weights(step: Step, num_classes: int) -> Tensor:
    """(C,) w* of the re-weighting hook; 1/C each without one."""
    if step.class_weights is not None:
        return step.class_weights
    return torch.full((num_classes,), 1 / num_classes, device=step.batch.source_label.device)
