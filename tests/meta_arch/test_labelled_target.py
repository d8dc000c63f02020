"""The pass on labels of the target: CBST's cross entropy and CRST's MRKLD, from the papers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.losses.entropy import uniform_cross_entropy
from t2sda.meta_arch.base import build_meta_arch
from t2sda.structures import DomainBatch
from tests.meta_arch.conftest import config_of, step_of
from tests.references.adversarial import softmax
from tests.training import noise_batch

KEYS = [
    *("META_ARCH.PASSES", "[source, labelled_target]", "DATASETS.TARGET", "streets_hazy_train"),
    *("LABELLED_TARGET.UNIFORM_WEIGHT", "0.1"),
]


def partly_labelled(rows: int) -> DomainBatch:
    batch = noise_batch(2)
    labels = batch.source_label.roll(1, 0)
    labels[:, rows:] = 255
    return dataclasses.replace(batch, target_label=labels)


@pytest.mark.parametrize("rows", [64, 13])
def test_losses_are_means_over_the_labelled_pixels(rows: int) -> None:
    torch.manual_seed(0)
    meta_arch = build_meta_arch(config_of("SourceOnly", *KEYS), CITYSCAPES_19).double().eval()
    batch = partly_labelled(rows)
    assert batch.target_label is not None
    with torch.no_grad():
        found = meta_arch("labelled_target", step_of(batch))
        logits = meta_arch.student.model(batch.image("target")).numpy()
    log_probs = np.log(softmax(logits))[:, :, :rows].transpose(0, 2, 3, 1)
    labels = batch.target_label.numpy()[:, :rows]
    own = np.take_along_axis(log_probs, labels[..., None], axis=-1)
    assert found["loss_labelled_target"].item() == pytest.approx(-own.mean(), rel=1e-9)
    # CRST, Table 1: -(1/K) sum_k log p_k of every labelled pixel.
    expected = 0.1 * -log_probs.mean(axis=-1).mean()
    assert found["loss_uniform"].item() == pytest.approx(expected, rel=1e-9)


def test_a_crop_without_labels_has_no_loss_and_no_gradient() -> None:
    meta_arch = build_meta_arch(config_of("SourceOnly", *KEYS), CITYSCAPES_19).eval()
    losses = meta_arch("labelled_target", step_of(partly_labelled(0)))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert [loss.item() for loss in losses.values()] == [0, 0]
    gradients = [p.grad for p in meta_arch.parameters() if p.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


def test_without_a_weight_there_is_one_loss() -> None:
    meta_arch = build_meta_arch(config_of("SourceOnly", *KEYS[:4]), CITYSCAPES_19).eval()
    assert list(meta_arch("labelled_target", step_of(partly_labelled(9)))) == [
        "loss_labelled_target"
    ]


def test_uniform_predictions_have_the_smallest_loss_log_c() -> None:
    counted, one = torch.ones(1, 1, 1, dtype=torch.bool), torch.tensor(1.0)
    uniform = uniform_cross_entropy(torch.zeros(1, 4, 1, 1), counted, one)
    assert uniform.item() == pytest.approx(np.log(4))
    sure = uniform_cross_entropy(torch.tensor([5.0, 0, 0, 0]).view(1, 4, 1, 1), counted, one)
    assert sure > uniform
