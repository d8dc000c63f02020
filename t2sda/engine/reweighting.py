"""Class weights of the pull loss or of the target loss, as hooks."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import sum_over_ranks
from t2sda.engine.hooks import Hook, RunObjects, hook_classes
from t2sda.errors import UserError
from t2sda.losses.reweighting import (
    class_confidence_sums,
    dynamic_class_weights,
    mean_class_confidence,
    static_class_weights,
)
from t2sda.meta_arch.base import Reads, pass_classes
from t2sda.meta_arch.pull import pulls
from t2sda.registry import HOOKS
from t2sda.structures import TARGET_PROBS, Step


def reweighting_hooks(cfg: CfgNode) -> list[str]:
    """Those of the run's hooks that weigh classes."""
    return [name for name, cls in hook_classes(cfg).items() if cls.weighs_classes]


def reweights_dynamically(cfg: CfgNode) -> bool:
    """Whether the weights follow the teacher's confidence."""
    return any(issubclass(cls, DynamicReweighting) for cls in hook_classes(cfg).values())


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
    when=reweights_dynamically,
    when_text="HOOKS.NAMES holds DynamicReweighting",
)


@SCHEMA.check
def reweighting_has_what_it_needs(cfg: CfgNode) -> list[str]:
    """One hook, and a loss that reads its weights."""
    hooks, passes = reweighting_hooks(cfg), pass_classes(cfg).values()
    problems = []
    if len(hooks) > 1:
        problems.append(f"HOOKS.NAMES: {', '.join(hooks)} write the same weights; list one of them")
    for hook in hooks:
        if cfg.REWEIGHTING.APPLY_TO == "pull" and not pulls(cfg):
            problems.append(
                f"HOOKS.NAMES: {hook} has no loss to weigh; add the pull pass, set "
                f"REWEIGHTING.APPLY_TO to target, or remove it"
            )
        weighed = any(cls.weighs_target_classes for cls in passes)
        if cfg.REWEIGHTING.APPLY_TO == "target" and not weighed:
            problems.append(
                f"REWEIGHTING.APPLY_TO: target, but no pass weighs the target's classes; add mixed "
                f"to META_ARCH.PASSES, or remove {hook} from HOOKS.NAMES"
            )
    return problems


class Reweighting(Hook):
    """Writes class weights into the field of `Step` that the chosen loss reads.

    Args:
        apply_to: "pull" or "target".
    """

    weighs_classes = True

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

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The teacher's predictions on the target."""
        return Reads(views={TARGET_PROBS})

    def after_teacher(self, step: Step) -> None:
        """Write the weights of this micro-batch."""
        teacher = step.teacher
        assert teacher is not None
        num_classes = teacher[TARGET_PROBS].shape[1]
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
