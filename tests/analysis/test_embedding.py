"""The sample of every class, and the embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t2sda.analysis.embedding import ClassSample, embed
from t2sda.errors import UserError


def images(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cells that hold their own number, of classes 0, 1 and 255."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(100.0 * count).view(count, 100, 1).expand(-1, -1, 2)
    labels = torch.randint(0, 3, (count, 100), generator=generator)
    return [(own, torch.where(of == 2, 255, of)) for own, of in zip(numbers, labels, strict=True)]


def sampled(order: list[int], seed: int = 0) -> ClassSample:
    sample = ClassSample(3, 2, per_class=20, seed=seed)
    for index in order:
        sample.add(*images()[index], index)
    return sample


def test_a_sample_has_so_many_of_each_class_whatever_the_order() -> None:
    forward, backward = sampled([0, 1, 2, 3, 4, 5]), sampled([5, 4, 3, 2, 1, 0])
    assert torch.bincount(forward.labels, minlength=3).tolist() == [20, 20, 0]
    torch.testing.assert_close(forward.features, backward.features)
    of_cell = torch.cat([labels for _, labels in images()])
    assert torch.equal(of_cell[forward.features[:, 0].long()], forward.labels)
    assert not torch.equal(forward.features, sampled([0, 1, 2, 3, 4, 5], seed=1).features)


def test_every_cell_is_as_likely_as_any_other() -> None:
    """Over 300 seeds, 20 of some 200 cells: images have the shares that their cells have."""
    counts = np.zeros(6)
    for seed in range(300):
        kept = sampled([0, 1, 2, 3, 4, 5], seed)
        cells = kept.features[kept.labels == 0][:, 0].numpy() // 100
        counts += np.bincount(cells.astype(int), minlength=6)
    share = np.array([(labels == 0).sum() for _, labels in images()], dtype=float)
    expected = counts.sum() * share / share.sum()
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected)), counts


def test_what_is_far_apart_stays_apart_in_one_embedding() -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn, the extra `analysis`")
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 8)
    samples = [centres.repeat(20, 1) + 0.05 * torch.randn(60, 8, generator=generator)] * 2
    found = embed(samples, seed=0)
    assert [positions.shape for positions in found] == [(60, 2), (60, 2)]
    points, labels = np.concatenate(found), np.tile(np.arange(3), 40)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert np.array_equal(labels[gaps.argmin(axis=1)], labels)
    np.testing.assert_array_equal(np.concatenate(embed(samples, seed=0)), points)


def test_too_few_cells_are_said() -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn, the extra `analysis`")
    with pytest.raises(UserError, match="3 labelled feature cells"):
        embed([torch.rand(2, 4), torch.rand(1, 4)], seed=0)
