"""The feature distance: encoder, classes, backward, and batches without things."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from t2sda.config import ConfigError
from t2sda.data.taxonomies import CITYSCAPES_19, Taxonomy
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch, StudentPass, build_meta_arch
from t2sda.meta_arch.feature_distance import thing_ids_of
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.branch import Branch
from t2sda.registry import PASSES
from t2sda.structures import DomainBatch, Step
from tests.components import components_restored
from tests.meta_arch.conftest import config_of, step_of

MakeBatch = Callable[..., DomainBatch]
THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of weights of the small network, as if it were pretrained."""
    torch.manual_seed(1)
    torch.save(TimmCNN("test_resnet").net.state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def build(weights: str, name: str = "SourceOnly", *overrides: str) -> MetaArch:
    keys = ("MODEL.BACKBONE.WEIGHTS", weights, "FEATURE_DISTANCE.WEIGHT", "0.5")
    return build_meta_arch(config_of(name, *keys, *overrides), CITYSCAPES_19)


def moved(meta_arch: MetaArch) -> MetaArch:
    """The same with a student that has learned: its last layers differ."""
    with torch.no_grad():
        for parameter in meta_arch.student.model.backbone.parameters():
            parameter.mul_(1.05)
    return meta_arch


def test_the_distance_is_the_mean_over_thing_cells_by_hand(
    weights: str, make_batch: MakeBatch
) -> None:
    meta_arch = moved(build(weights)).eval()
    batch = make_batch()
    losses = meta_arch("source", step_of(batch))
    reference = TimmCNN("test_resnet").eval()
    reference.net.load_state_dict(torch.load(weights))
    model = meta_arch.student.model
    with torch.no_grad():
        image = (batch.source_image.float() - model.pixel_mean) / model.pixel_std
        pairs = [net(image)[-1].double() for net in (model.backbone, reference)]
    # Blocks of 32 x 32 pixels are the cells: one class each.
    labels = batch.source_label[:, ::32, ::32]
    distances = [
        (pairs[0] - pairs[1])[b, :, i, j].norm().item()
        for b, i, j in torch.isin(labels, torch.tensor(THINGS)).nonzero().tolist()
    ]
    expected = 0.5 * sum(distances) / len(distances)
    assert losses["loss_feature_distance"].item() == pytest.approx(expected, rel=1e-4)
    assert losses["loss_source"].item() > 0


def test_a_batch_without_things_gives_zero_and_no_nan(weights: str, make_batch: MakeBatch) -> None:
    meta_arch = moved(build(weights)).train()
    roads = dataclasses.replace(make_batch(), source_label=torch.zeros(2, 64, 96).long())
    losses = meta_arch("source", step_of(roads))
    assert losses["loss_feature_distance"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in meta_arch.student.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_an_untrained_student_is_at_distance_zero_with_a_finite_gradient(
    weights: str, make_batch: MakeBatch
) -> None:
    meta_arch = build(weights).eval()
    loss = meta_arch("source", step_of(make_batch()))["loss_feature_distance"]
    assert loss.item() == 0
    loss.backward()
    gradient = next(meta_arch.student.model.backbone.parameters()).grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()


def test_the_encoder_is_frozen_and_stays_in_evaluation_mode(weights: str) -> None:
    meta_arch = build(weights, "SelfTraining").train()
    encoder = meta_arch.passes["source"].feature_distance.encoder  # type: ignore[union-attr]
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    saved = meta_arch.state_dict()
    assert any(name.startswith("passes.source.feature_distance.encoder") for name in saved)


def test_one_pass_carries_it(weights: str, make_batch: MakeBatch) -> None:
    passes = ("META_ARCH.PASSES", "[translated, source]", "TRANSLATION.NAME", "RandomStyleFDA")
    meta_arch = build(weights, "SourceOnly", *passes).eval()
    step = step_of(make_batch())
    assert set(meta_arch("translated", step)) == {"loss_translated", "loss_feature_distance"}
    assert set(meta_arch("source", step)) == {"loss_source"}


class OwnPass(StudentPass):
    """Has cross entropy with the source's labels, but no feature distance."""

    labelled_domain = "source"

    def forward(self, student: Branch, step: Step) -> dict[str, torch.Tensor]:
        features = self.features(student, step.batch.source_image, step)
        return {"loss_own": student.model.loss(features, step.batch.source_label)}


def test_a_pass_that_cannot_carry_it_leaves_it_to_one_that_can(
    weights: str, make_batch: MakeBatch
) -> None:
    with components_restored():
        PASSES.register("own")(OwnPass)
        meta_arch = build(weights, "SourceOnly", "META_ARCH.PASSES", "[own, source]").eval()
        step = step_of(make_batch())
        assert set(meta_arch("own", step)) == {"loss_own"}
        assert set(meta_arch("source", step)) == {"loss_source", "loss_feature_distance"}
        with pytest.raises(ConfigError, match=r"FEATURE_DISTANCE\.WEIGHT"):
            build(weights, "SourceOnly", "META_ARCH.PASSES", "[own]")


def test_things_are_those_of_the_taxonomy_or_of_the_list() -> None:
    assert thing_ids_of(CITYSCAPES_19, ()) == THINGS
    assert thing_ids_of(CITYSCAPES_19, ("pole", "car")) == (5, 13)


def test_classes_without_things_and_unknown_names_are_refused() -> None:
    water = Taxonomy("harbour", ("quay", "water"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(UserError, match=r"CLASSES: empty.*'harbour' names no things.*quay, water"):
        thing_ids_of(water, ())
    with pytest.raises(UserError, match="no class 'lorry'; known, nearest first"):
        thing_ids_of(CITYSCAPES_19, ("car", "lorry"))
    with pytest.raises(UserError, match="no class 'boat'"):
        Taxonomy("harbour", ("quay", "water"), ((0, 0, 0), (1, 1, 1)), things=("boat",))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["FEATURE_DISTANCE.WEIGHT", "0.005"], "no ImageNet features"),
        (["FEATURE_DISTANCE.CLASSES", "[car]"], "FEATURE_DISTANCE.CLASSES .*no effect"),
        (
            [
                *("FEATURE_DISTANCE.WEIGHT", "0.005", "MODEL.BACKBONE.WEIGHTS", "weights.pth"),
                *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"),
            ],
            r"this TimmViT are those of a pyramid that begins random.*PYRAMID_CHANNELS 0",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of("SourceOnly", *overrides)
