"""The mixed pass against Eq. (S1) and (S2), pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.losses.mixing import draw_pasted_classes, pasted_pixels, present_classes
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import TARGET_PROBS, DomainBatch, TeacherOutput
from tests.meta_arch.conftest import config_of, step_of
from tests.references import segmentation as reference


@pytest.mark.parametrize("case", ["plain", "ignored", "no confident pixel", "margins"])
def test_the_mixed_loss_is_the_equation(case: str, make_batch: Callable[..., DomainBatch]) -> None:
    meta_arch = build_meta_arch(config_of("SelfTraining"), CITYSCAPES_19).train()
    batch = make_batch()
    generator = torch.Generator().manual_seed(3)
    sharpness = 0.1 if case == "no confident pixel" else 8.0
    logits = sharpness * torch.randn(2, 19, 64, 96, generator=generator)
    if case == "ignored":
        batch.source_label[:, ::3] = 255
    if case == "margins":
        assert batch.target_valid is not None
        batch.target_valid[:, :20] = False
    step = step_of(batch)
    step.teacher = TeacherOutput({TARGET_PROBS: logits.softmax(dim=1)})
    seen: list[torch.Tensor] = []
    meta_arch.student.model.head.register_forward_hook(lambda *args: seen.append(args[-1].detach()))
    found = meta_arch("mixed", step)["loss_mixed"].item()
    classes = draw_pasted_classes(
        present_classes(batch.source_label), step.streams.generator("class mix")
    )
    pasted = pasted_pixels(batch.source_label, classes)
    confidence = step.teacher.confidence.numpy()
    quality = reference.pseudo_label_quality(confidence, 0.968)
    assert (quality == 0) == (case == "no confident pixel")
    assert batch.target_valid is not None
    expected = reference.target_loss(
        F.interpolate(seen[0], (64, 96), mode="bilinear").double().numpy(),
        batch.source_label.numpy(),
        pasted.numpy(),
        step.teacher.pseudo_labels.numpy(),
        quality,
        batch.target_valid.numpy(),
    )
    assert found == pytest.approx(expected, abs=1e-6)
