"""Adversarial adaptation of the output space: AdaptSegNet and ADVENT.

The student's outputs on the target are to look like those on the source to a discriminator, which
learns to distinguish them. With an auxiliary head there is a second discriminator, of its output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.func import functional_call

from t2sda.config import SCHEMA, Field
from t2sda.losses.adversarial import (
    DISCRIMINATOR_INPUTS,
    GAN_LOSSES,
    SOURCE,
    TARGET,
    discriminator_error,
)
from t2sda.meta_arch.base import BuildContext, Reads, StudentPass, has_pass
from t2sda.meta_arch.owners import LrSchedule, OptimizerSettings, ParameterGroup
from t2sda.meta_arch.source_only import SourcePass
from t2sda.modeling.branch import Branch
from t2sda.modeling.segmentor import Features
from t2sda.registry import PASSES
from t2sda.structures import Step

WIDTHS = (64, 128, 256, 512)
"""Channels of the discriminator's convolutions, each of which halves the grid; one more follows."""
SMALLEST_SIDE = 2 ** (len(WIDTHS) + 1)
OUTPUTS = "source_outputs"
"""In `Step.shared`: (L, B, C, H, W) logits on the source, of the head and the auxiliary one."""


def is_adversarial(cfg: CfgNode) -> bool:
    """Whether the student is trained against a discriminator."""
    return has_pass(cfg, OutputAdversarialPass)


SCHEMA.declare(
    "OUTPUT_ADVERSARIAL",
    {
        "INPUT": Field(
            "softmax",
            "what the discriminator sees: class probabilities (AdaptSegNet), or their weighted "
            "self-information (ADVENT)",
            choices=tuple(DISCRIMINATOR_INPUTS),
        ),
        "GAN": Field(
            "vanilla",
            "loss of both sides: binary cross entropy, or least squares",
            choices=GAN_LOSSES,
        ),
        "WEIGHT": Field(0.001, "weight of the student's term", low=0.0, exclusive_low=True),
        "REDUCTION": Field(
            1, "the discriminator sees logits of 1 / REDUCTION of the image's sides", low=1, high=8
        ),
        "LR": Field(1e-4, "Adam's learning rate of the discriminator", low=0.0),
        "BETAS": Field((0.9, 0.99), "Adam's betas of it", low=0.0, high=0.999999, length=2),
        "POWER": Field(0.9, "exponent of its polynomial decay to 0 at SOLVER.MAX_ITER", low=0.0),
    },
    when=is_adversarial,
    when_text="META_ARCH.PASSES holds output_adversarial",
)
SCHEMA.declare(
    "OUTPUT_ADVERSARIAL",
    {
        "AUX_WEIGHT": Field(
            0.0002,
            "weight of the student's term on the auxiliary head's output",
            low=0.0,
            exclusive_low=True,
        )
    },
    when=lambda cfg: is_adversarial(cfg) and bool(cfg.MODEL.AUX_HEAD.NAME),
    when_text="META_ARCH.PASSES holds output_adversarial and MODEL.AUX_HEAD.NAME is set",
)


@SCHEMA.check
def outputs_are_large_enough_for_the_discriminator(cfg: CfgNode) -> str | None:
    """It halves the grid five times."""
    if not is_adversarial(cfg):
        return None
    smallest = SMALLEST_SIDE * cfg.OUTPUT_ADVERSARIAL.REDUCTION
    if min(cfg.DATA.CROP_SIZE) >= smallest:
        return None
    return (
        f"DATA.CROP_SIZE: {list(cfg.DATA.CROP_SIZE)} is too small for the discriminator, which "
        f"needs {smallest} pixels on each side; raise it, or lower OUTPUT_ADVERSARIAL.REDUCTION"
    )


@PASSES.register("source_output")
class SourceOutputPass(SourcePass):
    """The source pass; what it predicted is there for later passes, without its graph."""

    provides = frozenset({OUTPUTS})

    def losses(self, student: Branch, features: Features, step: Step) -> dict[str, Tensor]:
        """See `SourcePass`; writes OUTPUTS."""
        losses = super().losses(student, features, step)
        with torch.no_grad():
            step.shared[OUTPUTS] = torch.stack(student.model.outputs(features)).detach()
        return losses


@PASSES.register("output_adversarial")
class OutputAdversarialPass(StudentPass):
    """The student deceives discriminators on target images; they learn to distinguish the domains.

    Both sides are evaluated with the weights from before the step, in one backward: gradients are
    those of the published order (freeze the discriminator, backward, unfreeze, backward).

    Args:
        num_classes: C.
        weights: of the student's term, one for each output, the head's first.
        input_of: logits -> what a discriminator sees.
        gan: one of GAN_LOSSES.
        reduction: of the logits' sides.
        lr, betas: of Adam.
        schedule: of its rate.
    """

    forward_of = "target image: backbone, head, discriminator"

    def __init__(
        self,
        num_classes: int,
        weights: tuple[float, ...],
        input_of: Callable[[Tensor], Tensor],
        gan: str,
        reduction: int,
        lr: float,
        betas: tuple[float, float],
        schedule: LrSchedule,
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(discriminator(num_classes) for _ in weights)
        self.weights = weights
        self.input_of = input_of
        self.gan = gan
        self.reduction = reduction
        self.lr = lr
        self.betas = betas
        self.schedule = schedule

    @classmethod
    def from_config(cls, cfg: CfgNode, context: BuildContext) -> Self:
        """Read OUTPUT_ADVERSARIAL."""
        weights: tuple[float, ...] = (cfg.OUTPUT_ADVERSARIAL.WEIGHT,)
        if cfg.MODEL.AUX_HEAD.NAME:
            weights += (cfg.OUTPUT_ADVERSARIAL.AUX_WEIGHT,)
        return cls(
            context.num_classes,
            weights,
            DISCRIMINATOR_INPUTS[cfg.OUTPUT_ADVERSARIAL.INPUT],
            cfg.OUTPUT_ADVERSARIAL.GAN,
            cfg.OUTPUT_ADVERSARIAL.REDUCTION,
            cfg.OUTPUT_ADVERSARIAL.LR,
            cfg.OUTPUT_ADVERSARIAL.BETAS,
            LrSchedule(cfg.SOLVER.MAX_ITER, power=cfg.OUTPUT_ADVERSARIAL.POWER),
        )

    @classmethod
    def reads(cls, cfg: CfgNode) -> Reads:
        """The target, and the outputs on the source."""
        return Reads(fields={"target_image"}, shared={OUTPUTS})

    def optimizer(self) -> OptimizerSettings:
        """Adam, for all discriminators."""
        group = ParameterGroup(list(self.discriminators.parameters()), self.lr)
        return OptimizerSettings([group], self.schedule, betas=self.betas)

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        """Returns `loss_adversarial` and `loss_discriminator`, and both `…_aux` if there are."""
        features = self.features(student, step.batch.image("target"), step)
        targets = student.model.outputs(features)
        losses: dict[str, Tensor] = {}
        for index, (source, target) in enumerate(zip(step.shared[OUTPUTS], targets, strict=True)):
            suffix = ("", "_aux")[index]
            seen = self._seen(source), self._seen(target)
            student_term, own_term = self._terms(self.discriminators[index], *seen)
            losses[f"loss_adversarial{suffix}"] = self.weights[index] * student_term
            losses[f"loss_discriminator{suffix}"] = own_term
        return losses

    def _terms(
        self, discriminator: nn.Module, source: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The student's error of seeming to be on the source, and the discriminator's own."""
        constants = {name: p.detach() for name, p in discriminator.named_parameters()}
        deceived = functional_call(discriminator, constants, (target,))
        on_source = discriminator_error(discriminator(source), SOURCE, self.gan)
        on_target = discriminator_error(discriminator(target.detach()), TARGET, self.gan)
        return discriminator_error(deceived, SOURCE, self.gan), (on_source + on_target) / 2

    def _seen(self, logits: Tensor) -> Tensor:
        if self.reduction > 1:
            size = [side // self.reduction for side in logits.shape[-2:]]
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return self.input_of(logits)


def discriminator(num_classes: int) -> nn.Sequential:
    """AdaptSegNet's: five 4x4 convolutions of stride 2, leaky ReLUs of slope 0.2, no norm.

    It maps (B, C, H, W) to (B, 1, H / 32, W / 32).
    """
    layers: list[nn.Module] = []
    channels = num_classes
    for width in WIDTHS:
        layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, stride=2, padding=1))
