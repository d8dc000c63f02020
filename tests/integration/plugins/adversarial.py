"""Adversarial adaptation of the output space, with a discriminator that has an Adam of its own."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits

from t2sda.config import SCHEMA, Field
from t2sda.meta_arch.base import Reads, StudentPass, has_pass
from t2sda.meta_arch.owners import LrSchedule, OptimizerSettings, ParameterGroup
from t2sda.meta_arch.source_only import SourcePass
from t2sda.registry import PASSES

SCHEMA.declare(
    "ADVERSARIAL",
    {"WEIGHT": Field(0.001, "weight of the student's term", low=0.0, exclusive_low=True)},
    when=lambda cfg: has_pass(cfg, AdversarialPass),
    when_text="META_ARCH.PASSES holds adversarial",
)


@PASSES.register("sharing_source")
class SharingSourcePass(SourcePass):
    """The source pass; its logits are there for whoever comes later."""

    provides = frozenset({"source_logits"})

    def losses(self, student, features, step):
        losses = super().losses(student, features, step)
        step.shared["source_logits"] = student.model.logits(features).detach()
        return losses


@PASSES.register("adversarial")
class AdversarialPass(StudentPass):
    """The student deceives the discriminator on the target, which separates the domains."""

    def __init__(self, num_classes, weight, max_iter):
        super().__init__()
        self.discriminator = nn.Sequential(
            nn.Conv2d(num_classes, 8, 4, stride=4), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 1)
        )
        self.weight = weight
        self.max_iter = max_iter

    @classmethod
    def from_config(cls, cfg, context):
        return cls(context.num_classes, cfg.ADVERSARIAL.WEIGHT, cfg.SOLVER.MAX_ITER)

    @classmethod
    def reads(cls, cfg):
        return Reads(fields={"target_image"}, shared={"source_logits"})

    def optimizer(self):
        group = ParameterGroup(list(self.discriminator.parameters()), lr=1e-4)
        schedule = LrSchedule(self.max_iter, power=0.9)
        return OptimizerSettings([group], schedule, betas=(0.9, 0.99))

    def forward(self, student, step):
        source = step.shared["source_logits"].softmax(dim=1)
        features = self.features(student, step.batch.image("target"), step)
        target = student.model.logits(features).softmax(dim=1)
        # The student's term leaves the discriminator alone: its weights are constants there.
        constants = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        deceived = functional_call(self.discriminator, constants, (target,))
        discriminated = self.discriminator(source), self.discriminator(target.detach())
        return {
            "loss_adversarial": self.weight * error_towards(0.0, deceived),
            "loss_discriminator": (
                error_towards(0.0, discriminated[0]) + error_towards(1.0, discriminated[1])
            )
            / 2,
        }


def error_towards(domain, found):
    return binary_cross_entropy_with_logits(found, torch.full_like(found, domain))
