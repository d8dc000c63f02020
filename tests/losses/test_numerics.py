"""Precision, unit vectors and integers drawn below a count."""

import pytest
import torch

from t2sda.losses.numerics import at_least_float32, draw_below, l2_normalize


def test_half_becomes_float32_and_double_stays() -> None:
    for given, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert at_least_float32(torch.ones(1, dtype=given)).dtype == expected


def test_zero_vectors_stay_zero_with_a_gradient_of_ordinary_size() -> None:
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    unit = l2_normalize(vectors)
    unit.sum().backward()
    torch.testing.assert_close(unit, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    assert vectors.grad is not None
    assert vectors.grad.abs().max() <= 1


@pytest.mark.parametrize("count", [1, 3, 1000, 2**24 - 1, 2**24])
def test_the_largest_random_number_stays_below_the_count(count: int) -> None:
    largest = 1 - 2**-24  # of float32, under 1
    assert (torch.tensor(largest, dtype=torch.float32) * torch.tensor(count)).long() == count - 1


def test_draws_lie_below_their_counts_and_reach_each_value() -> None:
    counts = torch.tensor([[0], [1], [4]])
    drawn = draw_below(counts, (3, 500), torch.Generator().manual_seed(0))
    assert [set(row.tolist()) for row in drawn] == [{0}, {0}, {0, 1, 2, 3}]
