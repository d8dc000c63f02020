"""Masked, mixed and source passes on two ranks give the losses of one process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import t2sda.builtin  # noqa: F401  (a spawned process begins with empty registries)
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.distributed import own_share, world_size
from t2sda.meta_arch.base import build_meta_arch
from t2sda.meta_arch.feature_distance import FeatureDistance
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.heads.light import LightHead
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.structures import TARGET_PROBS, DomainBatch, TeacherOutput
from tests.distributed import on_two_ranks
from tests.meta_arch.conftest import config_of, step_of

SIZE = (64, 96)


def whole_batch() -> tuple[DomainBatch, Tensor]:
    """Four images, and the teacher's probabilities; things are on the last two images alone."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 4, 3, *SIZE), generator=generator, dtype=torch.uint8)
    blocks = torch.tensor([0, 2, 13, 11])[:, None, None].expand(-1, 2, 3)
    labels = blocks.repeat_interleave(32, 1).repeat_interleave(32, 2).contiguous()
    probs = (8 * torch.randn(4, 19, *SIZE, generator=generator)).softmax(dim=1)
    valid = torch.ones(4, *SIZE, dtype=torch.bool)
    batch = DomainBatch(images[0], labels, target_image=images[1], target_valid=valid)
    return batch, probs


def losses_of_own_share(_: int) -> dict[str, float]:
    """Losses of this rank's images; the mean over the ranks is that of the whole batch."""
    batch, probs = whole_batch()
    share = own_share(4 // world_size())
    fields = {item.name: getattr(batch, item.name) for item in dataclasses.fields(batch)}
    own = DomainBatch(**{n: None if v is None else v[share] for n, v in fields.items()})
    losses: dict[str, float] = {}
    for pool, quality in (("batch", "batch"), ("image", "image")):
        torch.manual_seed(1)
        meta_arch = build_meta_arch(
            config_of(
                "SelfTraining",
                *("META_ARCH.PASSES", "[source, mixed, masked]", "MASKED.BLOCK_SIZE", "16"),
                *("SELF_TRAINING.CLASS_POOL", pool, "SELF_TRAINING.QUALITY", quality),
            ),
            CITYSCAPES_19,
        ).eval()  # running statistics: BatchNorm over ranks has tests of its own
        step = step_of(own)
        step.teacher = TeacherOutput({TARGET_PROBS: probs[share]})
        for name in meta_arch.pass_names:
            for loss, value in meta_arch(name, step).items():
                losses[f"{pool} {loss}"] = value.item()
    losses |= distance_of(own)
    losses |= losses_of_hidden_tokens(own, probs[share])
    return losses


def losses_of_hidden_tokens(own: DomainBatch, probs: Tensor) -> dict[str, float]:
    """The masked pass of a plain transformer, and what its token would learn."""
    torch.manual_seed(3)
    meta_arch = build_meta_arch(
        config_of(
            "SelfTraining",
            *("META_ARCH.PASSES", "[source, mixed, masked]", "MASKED.UNIT", "tokens"),
            *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"),
        ),
        CITYSCAPES_19,
    ).eval()
    step = step_of(own)
    step.teacher = TeacherOutput({TARGET_PROBS: probs})
    loss = meta_arch("masked", step)["loss_masked"]
    loss.backward()
    token = next(meta_arch.passes["masked"].parameters())
    assert token.grad is not None
    return {"tokens": loss.item(), "tokens' gradient": token.grad[0].item()}


def distance_of(own: DomainBatch) -> dict[str, float]:
    """The feature distance of two networks of random weights."""
    torch.manual_seed(2)
    encoder, student = TimmCNN("test_resnet").eval(), TimmCNN("test_resnet").eval()
    distance = FeatureDistance(encoder, (11, 13), weight=1.0)
    model = SegmentationModel(student, LightHead(student.feature_specs, 19, 8)).eval()
    features = model.features(own.source_image)
    return {"distance": distance(model, own.source_image, features, own.source_label).item()}


def test_two_ranks_give_the_losses_of_one(tmp_path: Path) -> None:
    one = losses_of_own_share(0)
    two = on_two_ranks(losses_of_own_share, tmp_path)
    assert one["distance"] > 0
    assert two[0]["distance"] == 0  # no thing on the first rank's images
    for name, expected in one.items():
        mean = (two[0][name] + two[1][name]) / 2
        assert mean == pytest.approx(expected, rel=1e-5), name
