"""Thing cells and feature distance against plain loops."""

import numpy as np
import pytest
import torch

from t2sda.losses.feature_distance import summed_feature_distance, thing_cells

THINGS = torch.tensor([2, 4])


def _most_frequent(labels: np.ndarray, side: int) -> np.ndarray:
    """The class that fills at least 0.75 of a cell, ignored pixels counted; else 255."""
    height, width = labels.shape
    cells = np.full((height // side, width // side), 255)
    for i in range(height // side):
        for j in range(width // side):
            cell = labels[i * side : (i + 1) * side, j * side : (j + 1) * side]
            ids, counts = np.unique(cell, return_counts=True)
            if counts.max() / side**2 >= 0.75:
                cells[i, j] = ids[counts.argmax()]
    return cells


@pytest.mark.parametrize("seed", range(5))
def test_cells_are_those_of_the_most_frequent_class(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Cells of one class, a quarter of them with some pixels of another on top.
    labels = np.kron(generator.choice([0, 2, 4, 255], (6, 8)), np.ones((4, 4), dtype=int))
    noise = generator.random(labels.shape) < 0.25
    labels = np.where(noise, generator.choice([1, 2, 255], labels.shape), labels)
    expected = np.isin(_most_frequent(labels, 4), THINGS.numpy())
    found = thing_cells(torch.from_numpy(labels)[None], THINGS, (6, 8))[0]
    assert expected.any()
    assert np.array_equal(found.numpy(), expected)


def test_a_share_of_exactly_three_quarters_counts() -> None:
    labels = torch.tensor([[2, 2], [2, 0]])[None]
    assert thing_cells(labels, THINGS, (1, 1)).item()
    labels = torch.tensor([[2, 2], [4, 0]])[None]
    assert not thing_cells(labels, THINGS, (1, 1)).item()


def test_sizes_that_are_no_multiple_of_the_grid_have_cells_too() -> None:
    labels = torch.full((1, 33, 33), 2)
    assert thing_cells(labels, THINGS, (2, 2)).all()


def test_the_distance_is_the_euclidean_norm_of_every_cell() -> None:
    generator = torch.Generator().manual_seed(0)
    features, reference = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    cells = torch.rand(2, 4, 5, generator=generator) < 0.5
    expected = sum(
        np.linalg.norm((features - reference)[b, :, i, j].numpy())
        for b, i, j in cells.nonzero().tolist()
    )
    assert summed_feature_distance(features, reference, cells).item() == pytest.approx(expected)


def test_no_cell_and_equal_features_give_zero_with_a_gradient_of_zero() -> None:
    features = torch.randn(1, 3, 2, 2, requires_grad=True)
    for reference, cells in (
        (torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).bool()),
        (features.detach().clone(), torch.ones(1, 2, 2).bool()),
    ):
        distance = summed_feature_distance(features, reference, cells)
        assert distance.item() == 0
        (gradient,) = torch.autograd.grad(distance, features)
        assert torch.equal(gradient, torch.zeros_like(features))
