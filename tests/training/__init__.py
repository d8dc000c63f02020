"""Trainers of tiny networks, and batches for them, without a loader."""

from __future__ import annotations

from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.distributed import world_size
from t2sda.engine.hooks import RunObjects, build_hooks
from t2sda.engine.optim import build_owners
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.meta_arch.base import build_meta_arch
from t2sda.modeling.normalization import share_statistics
from t2sda.structures import DomainBatch

CPU = torch.device("cpu")
SIZE = (64, 96)


def trainer_of(cfg: CfgNode) -> Trainer:
    """As the command composes it, before the first step."""
    torch.manual_seed(cfg.SEED)
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19)
    if world_size() > 1:
        share_statistics(meta_arch)
    trainer = Trainer(
        meta_arch,
        build_owners(cfg, meta_arch),
        Precision(cfg.SOLVER.PRECISION, CPU),
        list(build_hooks(cfg, RunObjects(meta_arch, Path())).values()),
        TrainerSettings.from_config(cfg),
        CPU,
    )
    for hook in trainer.hooks:
        hook.before_train(0)
    return trainer


def noise_batch(size: int, seed: int = 0, num_classes: int = 19) -> DomainBatch:
    """Images of noise, blocks of labels."""
    generator = torch.Generator().manual_seed(seed)

    def image() -> Tensor:
        return torch.randint(0, 256, (size, 3, *SIZE), generator=generator, dtype=torch.uint8)

    blocks = torch.randint(0, num_classes, (size, 8, 12), generator=generator)
    return DomainBatch(
        source_image=image(),
        source_label=blocks.repeat_interleave(8, 1).repeat_interleave(8, 2),
        translated_image=image().float(),
        target_image=image(),
        target_valid=torch.ones(size, *SIZE, dtype=torch.bool),
    )
