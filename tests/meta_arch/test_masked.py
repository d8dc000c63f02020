"""The masked pass: what is hidden, whose labels count, and what BatchNorm records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import nn

from t2sda.config import ConfigError
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.optim import build_owners, check_every_parameter_is_trained
from t2sda.errors import UserError
from t2sda.losses.masking import block_mask
from t2sda.meta_arch.base import MetaArch, build_meta_arch
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.structures import TARGET_PROBS, DomainBatch, Step, TeacherOutput
from tests.meta_arch.conftest import config_of, step_of

MakeBatch = Callable[..., DomainBatch]
MASKED = ["META_ARCH.PASSES", "[source, mixed, masked]", "MASKED.BLOCK_SIZE", "16"]


TOKENS = [
    *("META_ARCH.PASSES", "[source, mixed, masked]", "MASKED.UNIT", "tokens"),
    *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"),
    *("MODEL.BACKBONE.PYRAMID_CHANNELS", "0", "MODEL.BACKBONE.TOKEN_STRIDE", "12.8"),
]


def build_with_tokens(*overrides: str) -> MetaArch:
    torch.manual_seed(0)
    return build_meta_arch(config_of("SelfTraining", *TOKENS, *overrides), CITYSCAPES_19).train()


def build(*overrides: str) -> MetaArch:
    torch.manual_seed(0)
    return build_meta_arch(config_of("SelfTraining", *MASKED, *overrides), CITYSCAPES_19).train()


def sure_of(label: int, batch: DomainBatch) -> Step:
    """A step whose teacher is certain of one class everywhere."""
    step = step_of(batch)
    labels = torch.full((2, 64, 96), label)
    step.teacher = TeacherOutput(
        {TARGET_PROBS: nn.functional.one_hot(labels, 19).movedim(-1, 1).float()}
    )
    return step


def image_shown(meta_arch: MetaArch, pass_name: str, step: Step) -> torch.Tensor:
    model = meta_arch.student.model
    with mock.patch.object(model, "features", wraps=model.features) as features:
        meta_arch(pass_name, step)
    return features.call_args.args[0]


def test_hidden_blocks_have_the_mean_color_and_the_rest_is_the_target(
    make_batch: MakeBatch,
) -> None:
    plain = ("STRONG_AUGMENTATION.JITTER_PROBABILITY", "0", "STRONG_AUGMENTATION.BLUR_PROBABILITY")
    meta_arch = build(*plain, "0")
    batch = make_batch()
    shown = image_shown(meta_arch, "masked", sure_of(0, batch))
    assert batch.target_image is not None
    mean = meta_arch.student.model.pixel_mean.expand_as(shown)
    hidden = (shown == mean).all(dim=1)
    assert torch.equal(
        shown.movedim(1, -1)[~hidden], batch.target_image.float().movedim(1, -1)[~hidden]
    )
    blocks = hidden.view(2, 4, 16, 6, 16).float().mean(dim=(2, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < blocks.mean() < 0.95  # 48 blocks at 0.7: a standard error of 0.07


def test_the_loss_is_the_weighted_cross_entropy_with_the_teachers_labels(
    make_batch: MakeBatch,
) -> None:
    meta_arch = build("MASKED.WEIGHT", "0.5")
    batch = make_batch()
    valid = torch.zeros(2, 64, 96, dtype=torch.bool)
    valid[:, 10:40] = True
    step = sure_of(3, dataclasses.replace(batch, target_valid=valid))
    logits: list[torch.Tensor] = []
    head = meta_arch.student.model.head
    head.register_forward_hook(lambda *args: logits.append(args[-1].detach()))
    loss = meta_arch("masked", step)["loss_masked"].item()
    upsampled = nn.functional.interpolate(logits[0], (64, 96), mode="bilinear")
    pixel_losses = -upsampled.double().log_softmax(dim=1)[:, 3]  # q is 1: all is certain
    assert loss == pytest.approx(0.5 * (pixel_losses * valid).mean().item(), rel=1e-5)


def test_masked_and_mixed_images_are_augmented_apart(make_batch: MakeBatch) -> None:
    meta_arch = build("MASKED.RATIO", "0.01")
    differs = []
    for iteration in range(6):
        step = sure_of(0, make_batch())
        step.streams = dataclasses.replace(step.streams, iteration=iteration)
        step.batch = dataclasses.replace(
            step.batch,
            source_image=step.batch.target_image,  # pasting changes nothing
        )
        shown = [image_shown(meta_arch, name, step) for name in ("mixed", "masked")]
        differs.append(not torch.allclose(shown[0], shown[1]))
    assert any(differs)


def test_masked_images_leave_no_trace_in_the_statistics_unless_asked(
    make_batch: MakeBatch,
) -> None:
    for overrides, recorded in (
        ((), False),
        (("META_ARCH.BN_TRACK", "[source, mixed, masked]"), True),
    ):
        meta_arch = build(*overrides)
        norm = next(m for m in meta_arch.student.modules() if isinstance(m, nn.BatchNorm2d))
        assert norm.running_mean is not None
        before = norm.running_mean.clone()
        meta_arch("masked", sure_of(0, make_batch()))
        assert torch.equal(norm.running_mean, before) != recorded


def test_tokens_are_hidden_as_the_steps_stream_draws_them(make_batch: MakeBatch) -> None:
    meta_arch = build_with_tokens("MASKED.RATIO", "0.6")
    step = sure_of(0, make_batch())
    backbone = meta_arch.student.model.backbone
    with mock.patch.object(backbone, "forward", wraps=backbone.forward) as forward:
        losses = meta_arch("masked", step)
    image, hidden = forward.call_args.args
    stream = step.streams.generator("masked blocks")
    visible = block_mask(2, (5, 8), 1, 0.6, stream, torch.device("cpu"))  # 64 x 96 by 12.8
    assert torch.equal(hidden.mask, ~visible[:, 0])
    assert 0.4 < hidden.mask.float().mean() < 0.8  # 80 tokens at 0.6: a standard error of 0.05
    token = meta_arch.passes["masked"].mask_token.token
    assert hidden.token is token
    mean = meta_arch.student.model.pixel_mean
    shown = meta_arch.passes["masked"].shown(meta_arch.student, step)
    in_mean_color = (shown == mean).all(dim=1)
    seen = image * meta_arch.student.model.pixel_std + mean
    torch.testing.assert_close(
        shown.movedim(1, -1)[~in_mean_color],
        seen.movedim(1, -1)[~in_mean_color],
        atol=1e-3,
        rtol=0,
    )
    cells = in_mean_color[:, 6::13, 6::13][:, :5, :7]  # near the centres of cells
    assert torch.equal(cells, hidden.mask[:, :, :7])
    losses["loss_masked"].backward()
    assert token.grad.any()


def test_the_mask_token_learns_as_the_backbone_does_and_does_not_ship() -> None:
    cfg = config_of(
        "SelfTraining", *TOKENS, "SOLVER.BASE_LR", "3e-5", "SOLVER.WEIGHT_DECAY", "0.02"
    )
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19)
    owners = build_owners(cfg, meta_arch)
    check_every_parameter_is_trained(meta_arch, owners)
    assert [owner.name for owner in owners] == ["student", "masked"]
    (group,) = owners[1].optimizer.param_groups
    assert [tuple(parameter.shape) for parameter in group["params"]] == [(64,)]
    assert (group["base_lr"], group["weight_decay"]) == (3e-5, 0.02)
    factors = [[owner.schedule.factor(i) for i in (0, 700, 30000)] for owner in owners]
    assert factors[0] == factors[1]
    assert not any("mask_token" in name for name in meta_arch.student.state_dict())
    assert not any("mask_token" in name for name in meta_arch.teacher.state_dict())


def test_tokens_that_cannot_be_hidden_are_refused() -> None:
    with mock.patch("t2sda.modeling.backbones.timm_vit.can_hide_tokens", return_value=False):
        assert TimmViT("test_vit").tokens is None
        with pytest.raises(UserError, match="those of 'test_vit' cannot be hidden; take a network"):
            build_with_tokens()


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("SelfTraining", ["MASKED.RATIO", "1.0"], r"MASKED.RATIO.*in \(0.0, 0.99\]"),
        ("SelfTraining", ["MASKED.BLOCK_SIZE", "600"], "BLOCK_SIZE: 600 pixels do not fit"),
        (
            "SelfTraining",
            ["MASKED.UNIT", "tokens"],
            "UNIT: 'tokens', but MODEL.BACKBONE.NAME TimmCNN has none to hide; take TimmViT",
        ),
        (
            "SelfTraining",
            [*TOKENS, "MODEL.NAME", "HRDA"],
            "UNIT: 'tokens', but MODEL.NAME HRDA has none to hide; take SegmentationModel",
        ),
        (
            "SelfTraining",
            [*TOKENS, "MASKED.BLOCK_SIZE", "16"],
            r"MASKED.BLOCK_SIZE(.|\n)*MASKED.UNIT is blocks",
        ),
        ("SelfTraining", ["META_ARCH.BN_TRACK", "[sauce]"], "BN_TRACK: sauce are no passes"),
        (
            "SourceOnly",
            ["DATASETS.TARGET", "streets_hazy_train"],
            "lacks a teacher, which mixed, masked",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(
    method: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(method, *MASKED, *overrides)
