"""The contrast with class distributions: slow sums, sampling, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t2sda.losses.distribution import distribution_contrast, majority_labels


def some(num_classes: int = 4, dims: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(
        torch.randn(9, dims, generator=generator, dtype=torch.float64), dim=1
    )
    means = torch.randn(num_classes, dims, generator=generator, dtype=torch.float64)
    variances = torch.rand(num_classes, dims, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 255, 1, 2, 0, 3])
    return queries, labels, means, variances


@pytest.mark.parametrize("temperature", [0.5, 100.0])
@pytest.mark.parametrize("known", [(1, 1, 1, 1), (1, 0, 1, 1)])
def test_it_is_the_closed_form_query_by_query(temperature: float, known: tuple[int, ...]) -> None:
    queries, labels, means, variances = some()
    mask = torch.tensor(known, dtype=torch.bool)
    found = distribution_contrast(queries, labels, means, variances, mask, temperature)
    for index, label in enumerate(labels.tolist()):
        q = queries[index].numpy()
        total = 0.0
        for k in range(4):
            if known[k]:
                mean, variance = means[k].numpy(), variances[k].numpy()
                total += np.exp(q @ mean / temperature + q**2 @ variance / (2 * temperature**2))
        counts = label < 4 and known[label]
        expected = np.log(total) - q @ means[label].numpy() / temperature if counts else 0
        assert found[index].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_it_bounds_the_expected_contrast_of_samples_and_meets_it_without_variance() -> None:
    queries, labels, means, variances = some()
    known, random = torch.ones(4, dtype=torch.bool), np.random.default_rng(0)
    drawn = means.numpy() + np.sqrt(variances.numpy()) * random.normal(size=(4000, 4, 6))
    scores = np.einsum("nd,scd->snc", queries.numpy(), drawn)  # one sample of every class
    own = scores[:, np.arange(9), labels.clamp(max=3).numpy()]
    sampled = (np.log(np.exp(scores).sum(axis=2)) - own).mean(axis=0)
    bound = distribution_contrast(queries, labels, means, variances, known, 1.0).numpy()
    counted = labels.numpy() < 4
    assert (sampled[counted] < bound[counted] + 0.02).all()
    certain = distribution_contrast(queries, labels, means, 0 * variances, known, 1.0)
    expected = torch.nn.functional.cross_entropy(
        queries @ means.T, labels, ignore_index=255, reduction="none"
    )
    torch.testing.assert_close(certain, expected)


def test_without_a_known_class_the_loss_and_its_gradient_are_0() -> None:
    queries, labels, means, variances = some()
    queries.requires_grad_()
    nothing = torch.zeros(4, dtype=torch.bool)
    loss = distribution_contrast(queries, labels, means, variances, nothing, 1.0).sum()
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None
    assert not queries.grad.any()


def test_a_cell_has_the_class_that_fills_three_quarters_of_it() -> None:
    labels = torch.full((1, 4, 8), 255)
    labels[0, :3, :4] = 1  # 12 of 16
    labels[0, :, 4:6], labels[0, :, 6:] = 0, 2  # half and half
    assert majority_labels(labels, 3, (1, 2)).tolist() == [[[1, 255]]]
