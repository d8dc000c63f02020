"""Class weights of the pull loss or of the target loss, as hooks."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import sum_over_ranks
from t2sda.engine.hooks import Hook, RunObjects
from t2sda.errors import UserError
from t2sda.losses.reweighting import (
    class_confidence_sums,
    dynamic_class_weights,
    mean_class_confidence,
    static_class_weights,
)
from t2sda.meta_arch.base import pass_names
from t2sda.meta_arch.pull import pulls
from t2sda.registry import HOOKS, PASSES
from t2sda.structures import Step

REWEIGHTING_HOOKS = ("DynamicReweighting", "StaticReweighting")


def reweighting_hooks(cfg: CfgNode) -> list[str]:
    """Those of the run's hooks that weigh classes."""
    return [name for name in cfg.HOOKS.NAMES if name in REWEIGHTING_HOOKS]


SCHEMA.declare(
    "REWEIGHTING",
    {
        "APPLY_TO": Field(
            "pull",
            "loss that the class weights weigh: L_pull or L_target",
            choices=("pull", "target"),
        )
    },
    when=lambda cfg: bool(reweighting_hooks(cfg)),
    when_text="HOOKS.NAMES holds DynamicReweighting or StaticReweighting",
)
SCHEMA.declare(
    "REWEIGHTING",
    {
        "EXPONENT": Field(
            0.5, "β of Eq. (12): 0 weighs all classes alike", low=0.0, exclusive_low=True
        ),
        "UNPREDICTED": Field(
            "largest",
            "weight of a class that no target pixel is predicted as: the largest, as conf(c) is "
            "then 0, or none at all",
            choices=("largest", "none"),
        ),
    },
    when=lambda cfg: "DynamicReweighting" in cfg.HOOKS.NAMES,
    when_text="HOOKS.NAMES holds DynamicReweighting",
)


@SCHEMA.check
def reweighting_has_what_it_needs(cfg: CfgNode) -> list[str]:
    """One hook, a loss that reads its weights, and predictions where the hook needs them."""
    hooks = reweighting_hooks(cfg)
    names = pass_names(cfg)
    problems = []
    if len(hooks) > 1:
        problems.append(f"HOOKS.NAMES: {', '.join(hooks)} write the same weights; list one of them")
    for hook in hooks:
        if cfg.REWEIGHTING.APPLY_TO == "pull" and not pulls(cfg):
            problems.append(
                f"HOOKS.NAMES: {hook} has no loss to weigh; add the pull pass, set "
                f"REWEIGHTING.APPLY_TO to target, or remove it"
            )
        if cfg.REWEIGHTING.APPLY_TO == "target" and "mixed" not in names:
            problems.append(
                f"REWEIGHTING.APPLY_TO: target, but no pass trains on the target's pseudo-labels; "
                f"add mixed to META_ARCH.PASSES, or remove {hook} from HOOKS.NAMES"
            )
    seen = any("target_probs" in PASSES.get(name).reads(cfg).teacher for name in names)
    if "DynamicReweighting" in hooks and not seen:
        problems.append(
            "HOOKS.NAMES: DynamicReweighting needs the teacher's predictions on the target, which "
            "no pass asks for; add the mixed pass, or use StaticReweighting or neither"
        )
    return problems


class Reweighting(Hook):
    """Writes class weights into the field of `Step` that the chosen loss reads.

    Args:
        apply_to: "pull" or "target".
    """

    def __init__(self, apply_to: str) -> None:
        self.apply_to = apply_to

    def write(self, step: Step, class_weights: Tensor) -> None:
        """Hand (C,) weights that sum to 1 to the loss."""
        if self.apply_to == "pull":
            step.class_weights = class_weights
        else:
            step.target_class_weights = class_weights


@HOOKS.register()
class DynamicReweighting(Reweighting):
    """Classes the teacher is unsure of weigh more, Eq. (12), (13).

    conf(c) is taken at the resolution of the predictions, over the whole mini-batch.

    Args:
        reweighting_exponent: β.
        apply_to: "pull" or "target".
        unpredicted: "largest" or "none", the weight of a class that no pixel is predicted as.
    """

    def __init__(
        self, reweighting_exponent: float, apply_to: str = "pull", unpredicted: str = "largest"
    ) -> None:
        super().__init__(apply_to)
        self.reweighting_exponent = reweighting_exponent
        self.unpredicted = unpredicted

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> DynamicReweighting:
        """Read REWEIGHTING."""
        return cls(cfg.REWEIGHTING.EXPONENT, cfg.REWEIGHTING.APPLY_TO, cfg.REWEIGHTING.UNPREDICTED)

    def after_teacher(self, step: Step) -> None:
        """Write the weights of this micro-batch."""
        teacher = step.teacher
        assert teacher is not None
        assert teacher.target_probs is not None
        num_classes = teacher.target_probs.shape[1]
        sums, counts = class_confidence_sums(teacher.confidence, teacher.pseudo_labels, num_classes)
        sums, counts = sum_over_ranks(sums), sum_over_ranks(counts)
        counted = counts > 0 if self.unpredicted == "none" else None
        confidence = mean_class_confidence(sums, counts)
        weights = dynamic_class_weights(confidence, self.reweighting_exponent, counted)
        self.write(step, weights.float())


@HOOKS.register()
class StaticReweighting(Reweighting):
    """The supplement's simple re-weighting (SRW): constant weights of the 19 Cityscapes classes.

    Args:
        class_weights: (C,), sum to 1.
        apply_to: "pull" or "target".
    """

    def __init__(self, class_weights: Tensor, apply_to: str = "pull") -> None:
        super().__init__(apply_to)
        self.class_weights = class_weights

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> StaticReweighting:
        """Read REWEIGHTING.

        Raises:
            UserError: if the run has other than 19 classes.
        """
        weights = static_class_weights()
        model = run.meta_arch.student.model
        if model.num_classes != len(weights):
            raise UserError(
                f"HOOKS.NAMES: StaticReweighting has one weight for each of the {len(weights)} "
                f"Cityscapes classes, but this run has {model.num_classes} classes; use "
                f"DynamicReweighting, or none"
            )
        return cls(weights.to(model.pixel_mean.device), cfg.REWEIGHTING.APPLY_TO)

    def after_teacher(self, step: Step) -> None:
        """Write the weights."""
        self.write(step, self.class_weights)
