"""The mean teacher and the mixed pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.meta_arch.base import MetaArch, build_meta_arch
from t2sda.meta_arch.target_labels import PseudoLabelWeight
from t2sda.structures import TARGET_PROBS, DomainBatch, Step, TeacherOutput, View
from tests.meta_arch.conftest import config_of, step_of

MakeBatch = Callable[..., DomainBatch]


def taught(meta_arch: MetaArch, batch: DomainBatch) -> Step:
    step = step_of(batch)
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
    return step


def test_the_teacher_computes_what_is_asked_for_only(make_batch: MakeBatch) -> None:
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    teacher = taught(meta_arch, make_batch()).teacher
    assert teacher is not None
    assert list(teacher.views) == [TARGET_PROBS]
    torch.testing.assert_close(teacher[TARGET_PROBS].sum(dim=1), torch.ones(2, 64, 96))
    assert teacher.confidence is teacher.confidence  # computed once a step
    assert teacher.pseudo_labels is teacher.pseudo_labels
    with pytest.raises(AssertionError, match="not asked for the embeddings of the source image"):
        teacher[View("source", "embeddings")]


def test_a_mirrored_teacher_averages_image_and_mirror_image(make_batch: MakeBatch) -> None:
    batch = make_batch()
    assert batch.target_image is not None
    mirrored = dataclasses.replace(batch, target_image=batch.target_image.flip(-1))
    found = []
    for flip, seen in (("false", batch), ("false", mirrored), ("true", batch), ("true", mirrored)):
        torch.manual_seed(0)
        cfg = config_of("SelfTraining", "SELF_TRAINING.FLIP", flip)
        step = taught(build_meta_arch(cfg, CITYSCAPES_19).train(), seen)
        assert step.teacher is not None
        found.append(step.teacher[TARGET_PROBS])
    image, mirror, mean, mean_of_mirror = found
    assert not torch.allclose(image, mirror.flip(-1))
    torch.testing.assert_close(mean, (image + mirror.flip(-1)) / 2)
    torch.testing.assert_close(mean_of_mirror, mean.flip(-1))  # what it predicts is mirrored too


def test_the_teacher_uses_batch_statistics_and_records_none(make_batch: MakeBatch) -> None:
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    before = {name: buffer.clone() for name, buffer in meta_arch.teacher.named_buffers()}
    batch = make_batch()
    seen: list[torch.Tensor] = []

    def record(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.extend([inputs[0].clone(), output.clone()])

    norm = next(m for m in meta_arch.teacher.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_hook(record)
    taught(meta_arch, batch)
    for name, buffer in meta_arch.teacher.named_buffers():
        assert torch.equal(buffer, before[name]), name
    expected = nn.functional.batch_norm(
        seen[0], None, None, norm.weight, norm.bias, training=True, eps=norm.eps
    )
    activation = getattr(norm, "act", nn.Identity())
    torch.testing.assert_close(seen[1], activation(expected))


def test_dropout_of_the_teacher_is_off_and_of_the_student_on() -> None:
    meta_arch = build_meta_arch(
        config_of("SelfTraining", "MODEL.HEAD.DROPOUT", "0.5"), CITYSCAPES_19
    ).train()
    modes = {
        name: module.training
        for name, module in meta_arch.named_modules()
        if isinstance(module, nn.Dropout2d)
    }
    assert modes == {
        "student.model.head.dropout": True,
        "teacher.model.head.dropout": False,
    }


def test_margins_take_no_part(make_batch: MakeBatch) -> None:
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    batch = make_batch()
    step = taught(meta_arch, batch)
    nothing_valid = dataclasses.replace(batch, target_valid=torch.zeros(2, 64, 96).bool())
    confident = TeacherOutput(
        {
            TARGET_PROBS: nn.functional.one_hot(torch.zeros(2, 64, 96).long(), 19)
            .movedim(-1, 1)
            .float()
        }
    )
    losses = []
    for item in (batch, nothing_valid):
        step.batch, step.teacher = item, confident
        losses.append(meta_arch("mixed", step)["loss_mixed"].item())
    assert losses[1] < losses[0]


def test_an_unsure_teacher_leaves_the_pasted_pixels_alone(make_batch: MakeBatch) -> None:
    # q = 0 where no pixel reaches δ_p: the target's pixels weigh nothing, whatever their labels.
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    step = step_of(make_batch())
    losses = []
    for favoured in (3, 7):
        probs = torch.full((2, 19, 64, 96), 0.5 / 18)
        probs[:, favoured] = 0.5
        step.teacher = TeacherOutput({TARGET_PROBS: probs})
        losses.append(meta_arch("mixed", step)["loss_mixed"].item())
    assert losses[0] == losses[1]


def test_the_same_step_mixes_and_augments_alike(make_batch: MakeBatch) -> None:
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    step = taught(meta_arch, make_batch())
    first = meta_arch("mixed", step)["loss_mixed"]
    torch.manual_seed(99)
    assert torch.equal(first, meta_arch("mixed", step)["loss_mixed"])


def test_a_teacher_in_evaluation_mode_uses_the_running_statistics(make_batch: MakeBatch) -> None:
    meta_arch = build_meta_arch(
        config_of("SelfTraining", "META_ARCH.TEACHER_NORM", "running"), CITYSCAPES_19
    )
    batch = make_batch()
    teacher = taught(meta_arch.train(), batch).teacher
    assert teacher is not None
    with torch.no_grad():
        expected = meta_arch.teacher.eval().model(batch.target_image).softmax(dim=1)
    torch.testing.assert_close(teacher[TARGET_PROBS], expected)


def test_a_quality_of_each_image_weighs_each_by_its_own(make_batch: MakeBatch) -> None:
    # The teacher is sure of the first image alone, and all of its labels are wrong for the student.
    probs = torch.full((2, 19, 64, 96), 1 / 19)
    probs[0] = nn.functional.one_hot(torch.zeros(64, 96).long(), 19).movedim(-1, 0).float()
    confidence = probs.amax(dim=1)
    weights = [
        PseudoLabelWeight(threshold=0.968, quality=quality)(confidence)
        for quality in ("batch", "image")
    ]
    assert weights[0].item() == 0.5
    assert weights[1].tolist() == [1.0, 0.0]


def test_the_pool_of_an_image_pastes_its_own_classes_alone(make_batch: MakeBatch) -> None:
    labels = torch.stack([torch.full((64, 96), 2), torch.full((64, 96), 5)])
    batch = dataclasses.replace(make_batch(), source_label=labels)
    shares = {}
    for pool in ("batch", "image"):
        meta_arch = build_meta_arch(
            config_of("SelfTraining", "SELF_TRAINING.CLASS_POOL", pool), CITYSCAPES_19
        )
        mixed = meta_arch.passes["mixed"]
        pasted = []
        for iteration in range(8):
            step = step_of(batch)
            step.streams = dataclasses.replace(step.streams, iteration=iteration)
            pasted.append(mixed._pasted(step).flatten(1).any(dim=1))  # type: ignore[operator]
        shares[pool] = torch.stack(pasted).float().mean().item()
    # Half of one class is that class; half of two may be the other image's.
    assert shares["image"] == 1.0
    assert shares["batch"] < 1.0
