"""A memory bank: running prototypes of the whole mini-batch, and a hook that keeps a state too."""

import torch

from t2sda.distributed import RunningClassMeans, mean_over_ranks
from t2sda.engine.hooks import Hook
from t2sda.losses.sampling import labels_on_grid
from t2sda.meta_arch.base import StudentPass
from t2sda.registry import HOOKS, PASSES


@PASSES.register("memory_bank")
class MemoryBankPass(StudentPass):
    """Mean squared distance of the source's features to the prototypes of earlier steps."""

    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    @classmethod
    def from_config(cls, cfg, context):
        channels = context.feature_specs[-1].channels
        return cls(RunningClassMeans(context.num_classes, channels, momentum=0.9))

    def forward(self, student, step):
        features = self.features(student, step.batch.source_image, step).deepest
        labels = labels_on_grid(step.batch.source_label, student.model.feature_specs[-1]).flatten()
        rows = features.movedim(1, -1).flatten(0, 2)  # (B*h*w, D)
        labelled = labels < len(self.bank.means)
        classes = labels.where(labelled, 0)
        counts = labelled & self.bank.known[classes]
        squares = (rows - self.bank.means[classes]).square().mean(dim=1)
        loss = (squares * counts).sum() / mean_over_ranks(counts.sum()).clamp(min=1)
        self.bank.update_(rows, labels, last=step.is_last_micro_step)
        return {"loss_memory_bank": loss}


@HOOKS.register()
class SmoothLoss(Hook):
    """A moving average of the source loss."""

    def __init__(self):
        self.mean = torch.zeros(())

    def after_step(self, step):
        self.mean = 0.9 * self.mean + 0.1 * step.metrics["loss_source"]
        step.metrics["smooth/loss_source"] = self.mean.item()

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]
