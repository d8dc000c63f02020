"""The pull pass: what it computes, what it leaves alone, and how weights reach it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from t2sda.config import ConfigError
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.meta_arch.base import MetaArch, build_meta_arch
from t2sda.structures import DomainBatch, Step, View
from tests.meta_arch.conftest import config_of, step_of

MakeBatch = Callable[..., DomainBatch]


@pytest.fixture
def meta_arch() -> MetaArch:
    torch.manual_seed(0)
    return build_meta_arch(config_of("T2SDA"), CITYSCAPES_19).train()


def taught(meta_arch: MetaArch, batch: DomainBatch) -> Step:
    step = step_of(batch)
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
    return step


def test_translated_images_leave_no_trace_in_the_model(
    meta_arch: MetaArch, make_batch: MakeBatch
) -> None:
    step = taught(meta_arch, make_batch())
    before = {name: buffer.clone() for name, buffer in meta_arch.student.model.named_buffers()}
    meta_arch("pull", step)
    for name, buffer in meta_arch.student.model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_the_pull_pass_teaches_encoder_and_projector_not_the_head(
    meta_arch: MetaArch, make_batch: MakeBatch
) -> None:
    meta_arch("pull", taught(meta_arch, make_batch()))["loss_pull"].backward()
    learning = {
        name.split(".")[1] if name.startswith("projector") is False else "projector"
        for name, parameter in meta_arch.student.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert learning == {"backbone", "projector"}


def test_the_projector_reads_the_level_it_is_told_with_its_grid_and_centre(
    make_batch: MakeBatch,
) -> None:
    meta_arch = build_meta_arch(
        config_of("T2SDA", "MODEL.PROJECTOR.LEVEL", "1"), CITYSCAPES_19
    ).train()
    spec = meta_arch.student.model.backbone.feature_specs[1]
    assert meta_arch.student.embedding_spec == meta_arch.teacher.embedding_spec == spec  # type: ignore[union-attr]
    step = taught(meta_arch, make_batch())
    assert step.teacher is not None
    assert step.teacher[View("source", "embeddings")].shape == (2, 256, 8, 12)
    assert meta_arch("pull", step)["loss_pull"].item() > 0


def test_pull_weight_scales_the_loss(make_batch: MakeBatch) -> None:
    losses = []
    for weight in ("0.1", "0.4"):
        torch.manual_seed(0)
        meta_arch = build_meta_arch(
            config_of("T2SDA", "T2SDA.PULL_WEIGHT", weight), CITYSCAPES_19
        ).train()
        losses.append(meta_arch("pull", taught(meta_arch, make_batch()))["loss_pull"].item())
    assert losses[1] == pytest.approx(4 * losses[0], rel=1e-5)


def test_class_weights_of_the_hook_reach_the_loss(
    meta_arch: MetaArch, make_batch: MakeBatch
) -> None:
    step = taught(meta_arch, make_batch())
    uniform = meta_arch("pull", step)["loss_pull"].item()
    step.class_weights = torch.full((19,), 1 / 19)
    assert meta_arch("pull", step)["loss_pull"].item() == uniform
    absent = sorted(set(range(19)) - set(step.batch.source_label.unique().tolist()))
    step.class_weights = torch.nn.functional.one_hot(torch.tensor(absent[0]), 19).float()
    assert meta_arch("pull", step)["loss_pull"].item() == 0


def test_a_batch_without_labels_gives_a_loss_of_zero_with_a_graph(
    meta_arch: MetaArch, make_batch: MakeBatch
) -> None:
    batch = dataclasses.replace(make_batch(), source_label=torch.full((2, 64, 96), 255))
    loss = meta_arch("pull", taught(meta_arch, batch))["loss_pull"]
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("T2SDA", ["TRANSLATION.NAME", ""], "TRANSLATION.NAME: empty, but read by pull"),
        ("T2SDA", ["DATASETS.TARGET", ""], "DATASETS.TARGET: empty, but read by mixed, pull"),
        ("T2SDA", ["HOOKS.NAMES", "[]"], "has a teacher; add EmaTeacher"),
        ("SourceOnly", ["HOOKS.NAMES", "[EmaTeacher]"], "no teacher to update"),
        ("SourceOnly", ["TRANSLATION.NAME", "FDA"], "'FDA' has no effect"),
        ("SourceOnly", ["DATASETS.TARGET", "streets_hazy_train"], "no effect in this run"),
        (
            "SelfTraining",
            ["META_ARCH.PASSES", "[source, pull]"],
            "lacks a projector, whose embeddings pull",
        ),
        (
            "SelfTraining",
            ["HOOKS.NAMES", "[EmaTeacher, DynamicReweighting]"],
            "DynamicReweighting has no loss to weigh",
        ),
        ("SourceOnly", ["T2SDA.PULL_WEIGHT", "0.5"], "T2SDA.PULL_WEIGHT .*no effect"),
        ("SourceOnly", ["SELF_TRAINING.PSEUDO_LABEL_THRESHOLD", "0.5"], "no effect"),
        ("SourceOnly", ["REWEIGHTING.EXPONENT", "1.0"], "no effect"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    name: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(name, *overrides)
