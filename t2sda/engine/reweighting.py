"""Class weights of the pull loss or of the target loss, as hooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.distributed import RunningClassMeans, any_over_ranks, sum_over_ranks
from t2sda.engine.hooks import Hook, RunObjects, hook_classes
from t2sda.errors import UserError
from t2sda.losses.mixing import present_classes
from t2sda.losses.reweighting import (
    class_confidence_sums,
    dynamic_class_weights,
    mean_class_confidence,
    static_class_weights,
)
from t2sda.meta_arch.base import Reads, pass_classes
from t2sda.meta_arch.pull import pulls
from t2sda.registry import HOOKS
from t2sda.structures import IGNORE_INDEX, TARGET_PROBS, Step

UNPREDICTED = ("running", "largest", "none")
RUNNING_MOMENTUM = 0.9
"""Of conf(c) over mini-batches; the teacher's confidence of a hundred steps ago is another's."""


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
            "running",
            "conf(c) of a class that no target pixel is predicted as: that of earlier mini-batches "
            "(running mean), or 0, which gives it the largest weight; or it weighs nothing",
            choices=UNPREDICTED,
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

    conf(c) is taken at the resolution of the predictions, over the whole mini-batch. C holds the
    classes that the source has shown so far: one that never occurs there has no queries, and would
    keep a weight for good (docs/fidelity.md, E2).

    Args:
        num_classes: C.
        reweighting_exponent: β.
        apply_to: "pull" or "target".
        unpredicted: one of UNPREDICTED, what a class that no pixel is predicted as weighs.
        device: of the run.
        class_names: of the metrics; by default the classes' numbers.
    """

    def __init__(
        self,
        num_classes: int,
        reweighting_exponent: float,
        apply_to: str = "pull",
        unpredicted: str = "running",
        device: torch.device | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__(apply_to)
        self.num_classes = num_classes
        self.reweighting_exponent = reweighting_exponent
        self.unpredicted = unpredicted
        self.running = RunningClassMeans(num_classes, 1, RUNNING_MOMENTUM).to(device)
        self.in_source = torch.zeros(num_classes, dtype=torch.bool, device=device)
        names = class_names or [str(index) for index in range(num_classes)]
        self._names = (
            *("reweighting/unpredicted", "reweighting/weight_with_queries"),
            *(f"reweighting/weight/{name}" for name in names),
        )
        self._figures = torch.zeros(len(self._names), device=device)

    @classmethod
    def from_config(cls, cfg: CfgNode, run: RunObjects) -> DynamicReweighting:
        """Read REWEIGHTING."""
        model = run.meta_arch.student.model
        settings = cfg.REWEIGHTING
        return cls(
            model.num_classes,
            settings.EXPONENT,
            settings.APPLY_TO,
            settings.UNPREDICTED,
            model.pixel_mean.device,
            run.metric_names,
        )

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The teacher's predictions on the target."""
        return Reads(views={TARGET_PROBS})

    def state_dict(self) -> dict[str, Tensor]:
        """conf(c) of earlier mini-batches, and which classes the source has."""
        return {**self.running.state_dict(), "in_source": self.in_source}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on with what a checkpoint holds."""
        state = dict(state)
        self.in_source.copy_(state.pop("in_source"))
        self.running.load_state_dict(state)

    def after_teacher(self, step: Step) -> None:
        """Write the weights of this micro-batch."""
        teacher = step.teacher
        assert teacher is not None
        sums, counts = class_confidence_sums(
            teacher.confidence, teacher.pseudo_labels, self.num_classes
        )
        sums, counts = sum_over_ranks(sums), sum_over_ranks(counts)
        confidence, predicted = mean_class_confidence(sums, counts), counts > 0
        has_queries = any_over_ranks(present_classes(step.batch.source_label, "batch")[0])
        has_queries = has_queries[: self.num_classes]
        self.in_source |= has_queries
        counted = self.in_source & predicted if self.unpredicted == "none" else self.in_source
        if self.unpredicted == "running":
            ids = torch.arange(self.num_classes, device=counts.device)
            # Every rank hands in the same means; their mean over ranks is the same again.
            self.running.update_(
                confidence[:, None],
                ids.where(predicted, IGNORE_INDEX),
                last=step.is_last_micro_step,
            )
            confidence = confidence.where(predicted, self.running.means[:, 0])
        weights = dynamic_class_weights(confidence, self.reweighting_exponent, counted)
        unpredicted = (self.in_source & ~predicted).sum()
        with_queries = weights.where(has_queries, 0).sum()
        self._figures = torch.cat([torch.stack([unpredicted, with_queries]), weights])
        self.write(step, weights.float())

    def after_step(self, step: Step) -> None:
        """Of the last micro-batch: unpredicted classes, the weight of those with queries, w*."""
        figures = zip(self._names, self._figures.unbind(), strict=True)
        step.deferred_metrics.update(figures)


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
