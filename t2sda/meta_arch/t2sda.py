"""T2S-DA: pull pseudo-target features to the source prototypes of their class."""

from __future__ import annotations

from typing import ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import gather_over_ranks, rank, world_size
from t2sda.losses.negatives import unreliable_labels
from t2sda.losses.pseudo_labels import confidence_threshold
from t2sda.losses.pull import LabelledEmbeddings, PullLoss
from t2sda.losses.sampling import labels_on_grid
from t2sda.meta_arch.base import StudentPass, build_passes, pass_names
from t2sda.meta_arch.self_training import MeanTeacher
from t2sda.modeling.branch import Branch, batch_statistics_untracked
from t2sda.modeling.projector import Projector
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import META_ARCHS, PASSES
from t2sda.structures import Step

SCHEMA.declare(
    "T2SDA",
    {
        "PULL_WEIGHT": Field(0.1, "λ, weight of the pull loss", low=0.0, exclusive_low=True),
        "TEMPERATURE": Field(0.2, "τ of Eq. (2)", low=0.0, exclusive_low=True),
        "QUERIES_PER_CLASS": Field(128, "n, base number of queries of a class", low=1),
        "NUM_NEGATIVES": Field(1024, "m, negatives of a class, shared by its queries", low=2),
        "UNRELIABLE_FRACTION": Field(
            0.5,
            "α of Eq. (9): share of target positions, the least confident, that serve as negatives",
            low=0.0,
            high=1.0,
        ),
    },
    when=lambda cfg: "pull" in pass_names(cfg),
    when_text="META_ARCH.PASSES holds pull",
)


@SCHEMA.check
def pull_needs_embeddings(cfg: CfgNode) -> str | None:
    """Only T2SDA has a projector."""
    if "pull" not in pass_names(cfg) or cfg.META_ARCH.NAME == "T2SDA":
        return None
    return f"META_ARCH.PASSES: pull needs a projector, which {cfg.META_ARCH.NAME} lacks; use T2SDA"


@PASSES.register("pull")
class PullPass(StudentPass):
    """λ L_pull, Eq. (3): pseudo-target queries, the teacher's source and target keys.

    The student's BatchNorm in the model does not record the statistics of translated images: the
    model is what ships, and it will never see one. No decoder runs in this pass, and there is no
    cross entropy on the pseudo-target.

    Args:
        pull_loss: with its sampling.
        pull_weight: λ.
        unreliable_fraction: α.
    """

    teacher_needs = frozenset({"source_embeddings", "target_embeddings", "target_probs"})
    needs_target = True
    needs_translation = True

    def __init__(self, pull_loss: PullLoss, pull_weight: float, unreliable_fraction: float) -> None:
        super().__init__()
        self.pull_loss = pull_loss
        self.pull_weight = pull_weight
        self.unreliable_fraction = unreliable_fraction

    @classmethod
    def from_config(cls, cfg: CfgNode) -> PullPass:
        """Read T2SDA."""
        pull_loss = PullLoss(
            temperature=cfg.T2SDA.TEMPERATURE,
            queries_per_class=cfg.T2SDA.QUERIES_PER_CLASS,
            num_negatives=cfg.T2SDA.NUM_NEGATIVES,
        )
        return cls(pull_loss, cfg.T2SDA.PULL_WEIGHT, cfg.T2SDA.UNRELIABLE_FRACTION)

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_pull`; statistics and keys are those of all ranks."""
        image = step.batch.translated_image
        assert image is not None
        with batch_statistics_untracked(student.model):
            features = student.model.features(image)
        queries = student.embed(features)
        height, width = queries.shape[-2:]
        source, target = self._keys(step, (height, width))
        share = self.pull_loss(
            queries,
            source.labels,
            positives=source,
            source_keys=source,
            target_keys=target,
            class_weights=self._class_weights(step),
            generator=step.streams.generator("pull", queries.device),
            first_image=rank() * len(image),
        )
        # The shares of the ranks add up to the loss; gradients are averaged over the ranks.
        return {"loss_pull": self.pull_weight * world_size() * share}

    def _keys(
        self, step: Step, grid: tuple[int, int]
    ) -> tuple[LabelledEmbeddings, LabelledEmbeddings]:
        """Source keys, Eq. (7), and target keys with unreliable labels alone, Eq. (8) and (9)."""
        teacher = step.teacher
        assert teacher is not None
        assert teacher.source_embeddings is not None
        assert teacher.target_embeddings is not None
        confidence = gather_over_ranks(labels_on_grid(teacher.confidence, grid))
        pseudo_labels = gather_over_ranks(labels_on_grid(teacher.pseudo_labels, grid))
        threshold = confidence_threshold(confidence, self.unreliable_fraction)
        source_labels = gather_over_ranks(labels_on_grid(step.batch.source_label, grid))
        return (
            LabelledEmbeddings(gather_over_ranks(teacher.source_embeddings), source_labels),
            LabelledEmbeddings(
                gather_over_ranks(teacher.target_embeddings),
                unreliable_labels(pseudo_labels, confidence, threshold),
            ),
        )

    def _class_weights(self, step: Step) -> Tensor:
        """(C,) w* of the re-weighting hook; 1/C each without one."""
        if step.class_weights is not None:
            return step.class_weights
        assert step.teacher is not None
        probs = step.teacher.target_probs
        assert probs is not None
        return probs.new_full((probs.shape[1],), 1 / probs.shape[1])


@META_ARCHS.register()
class T2SDA(MeanTeacher):
    """The paper's method: self-training, and the pull loss on projected features."""

    default_passes: ClassVar[tuple[str, ...]] = ("source", "mixed", "pull")

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> T2SDA:
        """Build student and teacher with their projectors, and the passes."""
        model = build_segmentation_model(cfg, num_classes)
        projector = Projector.from_config(cfg, model.backbone.feature_specs[-1].channels)
        return cls(Branch(model, projector), build_passes(cfg))
