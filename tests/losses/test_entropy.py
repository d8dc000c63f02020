"""Entropy of predictions against a plain sum in NumPy and values worked out by hand."""

import numpy as np
import pytest
import torch

from t2sda.losses.entropy import mean_normalized_entropy


def test_entropy_is_the_sum_over_classes_divided_by_log_c() -> None:
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    exponents = np.exp(logits.numpy())
    probs = exponents / exponents.sum(axis=1, keepdims=True)
    expected = -(probs * np.log2(probs)).sum(axis=1).mean() / np.log2(5)
    assert mean_normalized_entropy(logits).item() == pytest.approx(expected, rel=1e-12)


def test_equal_logits_give_one_and_certain_ones_zero() -> None:
    assert mean_normalized_entropy(torch.zeros(1, 7, 2, 2)).item() == pytest.approx(1.0)
    certain = torch.tensor([1e4, 0.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    entropy = mean_normalized_entropy(certain)
    assert entropy.item() == 0.0
    entropy.backward()
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()


def test_two_classes_by_hand() -> None:
    # p = (1/4, 3/4): 1/4 * 2 + 3/4 * log2(4/3) = 0.8112781 bits of 1
    logits = torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1)
    assert mean_normalized_entropy(logits).item() == pytest.approx(0.8112781, abs=1e-6)


def test_half_precision_logits_are_taken_in_float32() -> None:
    assert mean_normalized_entropy(torch.zeros(1, 2, 1, 1).bfloat16()).dtype == torch.float32
