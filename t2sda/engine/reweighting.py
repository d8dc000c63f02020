"""Class weights of the pull loss, as a hook."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.distributed import sum_over_ranks
from t2sda.engine.hooks import Hook, RunObjects
from t2sda.losses.reweighting import (
    class_confidence_sums,
    dynamic_class_weights,
    mean_class_confidence,
)
from t2sda.meta_arch.base import pass_names
from t2sda.registry import HOOKS
from t2sda.structures import Step

SCHEMA.declare(
    "REWEIGHTING",
    {
        "EXPONENT": Field(
            0.5, "β of Eq. (12): 0 weighs all classes alike", low=0.0, exclusive_low=True
        )
    },
    when=lambda cfg: "DynamicReweighting" in cfg.HOOKS.NAMES,
    when_text="HOOKS.NAMES holds DynamicReweighting",
)


@SCHEMA.check
def reweighting_needs_pull_loss(cfg: CfgNode) -> str | None:
    """Without the pull pass nothing reads the weights."""
    if "DynamicReweighting" not in cfg.HOOKS.NAMES or "pull" in pass_names(cfg):
        return None
    return "HOOKS.NAMES: DynamicReweighting has no loss to weigh; add the pull pass or remove it"


@HOOKS.register()
class DynamicReweighting(Hook):
    """Writes `step.class_weights`: classes the teacher is unsure of weigh more, Eq. (12), (13).

    conf(c) is taken at the resolution of the predictions, over the whole mini-batch.

    Args:
        reweighting_exponent: β.
    """

    def __init__(self, reweighting_exponent: float) -> None:
        self.reweighting_exponent = reweighting_exponent

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> DynamicReweighting:
        """Read REWEIGHTING."""
        return cls(cfg.REWEIGHTING.EXPONENT)

    def after_teacher(self, step: Step) -> None:
        """Write the weights of this micro-batch."""
        teacher = step.teacher
        assert teacher is not None
        assert teacher.target_probs is not None
        num_classes = teacher.target_probs.shape[1]
        sums, counts = class_confidence_sums(teacher.confidence, teacher.pseudo_labels, num_classes)
        confidence = mean_class_confidence(sum_over_ranks(sums), sum_over_ranks(counts))
        step.class_weights = dynamic_class_weights(confidence, self.reweighting_exponent).float()
