"""The entropy pass: the target's predictions, weighted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.losses.entropy import mean_normalized_entropy
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import DomainBatch
from tests.meta_arch.conftest import config_of, step_of


def test_the_loss_is_the_weighted_entropy_on_the_target(
    make_batch: Callable[..., DomainBatch],
) -> None:
    cfg = config_of(
        "SourceOnly",
        *("META_ARCH.PASSES", "[source, entropy]", "ENTROPY.WEIGHT", "0.25"),
        *("DATASETS.TARGET", "streets_hazy_train"),
    )
    meta_arch = build_meta_arch(cfg, CITYSCAPES_19).eval()
    batch = make_batch()
    loss = meta_arch("entropy", step_of(batch))["loss_entropy"]
    expected = mean_normalized_entropy(meta_arch.student.model(batch.target_image))
    assert loss.item() == pytest.approx(0.25 * expected.item(), rel=1e-6)
    loss.backward()
    gradients = [p.grad for p in meta_arch.student.parameters() if p.grad is not None]
    assert any(torch.count_nonzero(gradient) for gradient in gradients)
