"""Training on labels that the target set carries: pseudo-labels of rounds (CBST, CRST)."""

from __future__ import annotations

from typing import Self

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import mean_over_ranks, world_size
from t2sda.losses.entropy import uniform_cross_entropy
from t2sda.meta_arch.base import BuildContext, Reads, StudentPass, has_pass
from t2sda.modeling.branch import Branch
from t2sda.registry import PASSES
from t2sda.structures import IGNORE_INDEX, Step

SCHEMA.declare(
    "LABELLED_TARGET",
    {
        "UNIFORM_WEIGHT": Field(
            0.0,
            "weight of the cross entropy with the uniform distribution on the labelled pixels; 0.1 "
            "is CRST's MRKLD",
            low=0.0,
        )
    },
    when=lambda cfg: has_pass(cfg, LabelledTargetPass),
    when_text="META_ARCH.PASSES holds labelled_target",
)


@PASSES.register("labelled_target")
class LabelledTargetPass(StudentPass):
    """Cross entropy on target images with the labels of their dataset, as `pseudo-label` makes it.

    A mean over the labelled pixels of the mini-batch, unlike that of the source: a rule labels a
    fifth of them, and the loss is not to shrink with it.

    Args:
        uniform_weight: of the cross entropy with the uniform distribution; 0: none.
    """

    forward_of = "target image, with its dataset's labels: backbone, head"

    def __init__(self, uniform_weight: float = 0.0) -> None:
        super().__init__()
        self.uniform_weight = uniform_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read LABELLED_TARGET."""
        return cls(cfg.LABELLED_TARGET.UNIFORM_WEIGHT)

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The target and its labels."""
        return Reads(fields={"target_image", "target_label"})

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_labelled_target`, and `loss_uniform` if wanted."""
        labels = step.batch.target_label
        assert labels is not None
        labelled = labels != IGNORE_INDEX
        # A micro-batch without a labelled pixel has a loss of 0, not 0 / 0; one pixel counts fully.
        count = mean_over_ranks(labelled.sum()).clamp(min=1 / world_size())
        features = self.features(student, step.batch.image("target"), step)
        losses = {"loss_labelled_target": student.model.loss(features, labels, normalizer=count)}
        if self.uniform_weight > 0:
            logits = student.model.logits(features)
            divergence = uniform_cross_entropy(logits, labelled, count)
            losses["loss_uniform"] = self.uniform_weight * divergence
        return losses
