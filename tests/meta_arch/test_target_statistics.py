"""The pass that shows the student target images for its running statistics alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import t2sda.builtin  # noqa: F401
from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from t2sda.meta_arch.base import build_meta_arch, recording_passes
from tests.meta_arch.conftest import config_of
from tests.training import noise_batch, trainer_of

LISTED = ("META_ARCH.PASSES", "[source, target_statistics]")
TARGET = ("DATASETS.TARGET", "streets_hazy_train")


def stepped(passes: str) -> tuple[nn.Module, nn.Module]:
    """The student's model before and after one training step."""
    cfg = config_of("SelfTraining", "META_ARCH.PASSES", passes)
    trainer = trainer_of(cfg)
    model = trainer.meta_arch.student.model
    before = copy.deepcopy(model)
    trainer.run_step(0, iter([noise_batch(2)]))
    return before, model


def test_the_target_alone_is_recorded_and_learning_is_as_without_it() -> None:
    _, without = stepped("[source, mixed]")
    before, model = stepped("[source, mixed, target_statistics]")
    pairs = zip(model.named_parameters(), without.parameters(), strict=True)
    assert all(torch.equal(own, other) for (_, own), other in pairs)
    with torch.no_grad():  # by hand: one forward in training mode, with the weights of the start
        before.train()(noise_batch(2).target_image)
    recorded = dict(before.named_buffers())
    means = {name: own for name, own in model.named_buffers() if name.endswith("running_mean")}
    assert means
    for name, own in means.items():
        torch.testing.assert_close(own, recorded[name], msg=name)
        assert not torch.equal(own, dict(without.named_buffers())[name]), name


def test_other_passes_record_too_if_told_so() -> None:
    assert recording_passes(config_of("SourceOnly", *LISTED, *TARGET)) == ("target_statistics",)
    both = ("META_ARCH.BN_TRACK", "[source, target_statistics]")
    named = recording_passes(config_of("SourceOnly", *LISTED, *TARGET, *both))
    assert named == ("source", "target_statistics")


def test_it_needs_a_target() -> None:
    with pytest.raises(ConfigError, match="DATASETS.TARGET: empty, but read by target_statistics"):
        config_of("SourceOnly", *LISTED)


def test_statistics_that_are_not_recorded_or_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="BN_TRACK: does not list target_statistics, which"):
        config_of("SourceOnly", *LISTED, *TARGET, "META_ARCH.BN_TRACK", "[source]")
    vit = (
        *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"),
        *("MODEL.BACKBONE.PYRAMID_CHANNELS", "0", "MODEL.HEAD.NAME", "LinearHead"),
    )
    with pytest.raises(UserError, match="target_statistics has no effect, as there is no BatchN"):
        build_meta_arch(load_config(None, [*LISTED, *TARGET, *vit]), CITYSCAPES_19)
