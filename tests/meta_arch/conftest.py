"""Configurations and batches small enough to step in a second."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fvcore.common.config import CfgNode

from t2sda.config import load_config
from t2sda.structures import DomainBatch, RandomStreams, Step

TINY = [
    *("MODEL.BACKBONE.TIMM_NAME", "test_resnet"),
    *("MODEL.HEAD.CHANNELS", "16", "MODEL.HEAD.DROPOUT", "0.0"),
]
WITH_TEACHER = ["DATASETS.TARGET", "streets_hazy_train", "HOOKS.NAMES", "[EmaTeacher]"]
METHODS = {
    "SourceOnly": [],
    "SelfTraining": WITH_TEACHER,
    "SePiCo": [*WITH_TEACHER, "SEPICO.START", "0"],
    "T2SDA": [*WITH_TEACHER, "TRANSLATION.NAME", "FDA", "T2SDA.NUM_NEGATIVES", "32"],
}


def config_of(name: str, *overrides: str) -> CfgNode:
    """A small configuration of a method."""
    return load_config(None, ["META_ARCH.NAME", name, *TINY, *METHODS[name], *overrides])


def step_of(batch: DomainBatch) -> Step:
    """The first step's record."""
    return Step(0, 0, batch, RandomStreams(0, 0, 0))


@pytest.fixture
def make_batch() -> Callable[..., DomainBatch]:
    """Random images, blocks of labels."""

    def make(size: int = 2, num_classes: int = 19) -> DomainBatch:
        generator = torch.Generator().manual_seed(0)

        def image() -> torch.Tensor:
            shape = (size, 3, 64, 96)
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

        blocks = torch.randint(0, num_classes, (size, 2, 3), generator=generator)
        return DomainBatch(
            source_image=image(),
            source_label=blocks.repeat_interleave(32, 1).repeat_interleave(32, 2),
            translated_image=image().float(),
            target_image=image(),
            target_valid=torch.ones(size, 64, 96, dtype=torch.bool),
        )

    return make
