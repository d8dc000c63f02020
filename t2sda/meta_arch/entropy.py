"""Minimum entropy on the target: the MinEnt baseline of ADVENT (Vu et al., CVPR 2019)."""

from __future__ import annotations

from typing import Self

from fvcore.common.config import CfgNode
from torch import Tensor

from t2sda.config import SCHEMA, Field
from t2sda.losses.entropy import mean_normalized_entropy
from t2sda.meta_arch.base import BuildContext, Reads, StudentPass, has_pass
from t2sda.modeling.branch import Branch
from t2sda.registry import PASSES
from t2sda.structures import Step

SCHEMA.declare(
    "ENTROPY",
    {"WEIGHT": Field(0.001, "weight of the entropy", low=0.0, exclusive_low=True)},
    when=lambda cfg: has_pass(cfg, EntropyPass),
    when_text="META_ARCH.PASSES holds entropy",
)
SCHEMA.declare(
    "ENTROPY",
    {
        "AUX_WEIGHT": Field(
            0.0002,
            "weight of the entropy of the auxiliary head's output",
            low=0.0,
            exclusive_low=True,
        )
    },
    when=lambda cfg: has_pass(cfg, EntropyPass) and bool(cfg.MODEL.AUX_HEAD.NAME),
    when_text="META_ARCH.PASSES holds entropy and MODEL.AUX_HEAD.NAME is set",
)


@PASSES.register("entropy")
class EntropyPass(StudentPass):
    """Entropy of the student's predictions on target images, divided by log C.

    Ranks hold equally many pixels, so the mean of their means is that of the whole mini-batch.

    Args:
        weight: of the loss.
        aux_weight: of that of the auxiliary head's output, if there is one.
    """

    forward_of = "target image: backbone, head"

    def __init__(self, weight: float, aux_weight: float = 0.0) -> None:
        super().__init__()
        self.weights = (weight, aux_weight)

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read ENTROPY."""
        aux_weight = cfg.ENTROPY.AUX_WEIGHT if cfg.MODEL.AUX_HEAD.NAME else 0.0
        return cls(cfg.ENTROPY.WEIGHT, aux_weight)

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The target."""
        return Reads(fields={"target_image"})

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_entropy`, and `loss_entropy_aux` with an auxiliary head."""
        features = self.features(student, step.batch.image("target"), step)
        outputs = student.model.outputs(features)
        names = ("loss_entropy", "loss_entropy_aux")
        return {
            name: weight * mean_normalized_entropy(logits)
            for name, weight, logits in zip(names, self.weights, outputs, strict=False)
        }
