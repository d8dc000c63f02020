"""What the pull loss is made of: loss of a query, prototypes, queries, negatives, draws of rows."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from t2sda.losses.numerics import l2_normalize
from t2sda.losses.pull import Keys, class_prototypes, info_nce, pull_mse
from t2sda.losses.pull_sampling import (
    RowsByClass,
    class_counts,
    draw,
    num_negatives,
    num_queries,
)
from tests.references import pull as reference


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=_generator(seed), dtype=dtype)


@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0])
def test_info_nce_is_the_equation(temperature: float) -> None:
    queries, negatives = (l2_normalize(_randn(count, 4, seed=count)) for count in (5, 7))
    (prototype,) = l2_normalize(_randn(1, 4, seed=1))
    times = torch.tensor([1, 1, 3, 2, 1, 0, 1])
    found = info_nce(queries, prototype, negatives, times.log(), temperature)
    repeated = list(negatives.repeat_interleave(times, dim=0).numpy())
    for query, loss in zip(queries, found, strict=True):
        expected = reference.info_nce(query.numpy(), prototype.numpy(), repeated, temperature)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_extreme_temperatures_neither_overflow_nor_vanish() -> None:
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    opposite, once = torch.tensor([-1.0, 0.0]), torch.zeros(1)
    # positive -1000, negative 1000: the loss is their distance
    loss = info_nce(query, opposite, -opposite[None], once, 0.001)
    loss.sum().backward()
    assert loss.item() == pytest.approx(2000)
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert info_nce(query, -opposite, opposite[None], once, 0.001).item() == 0


def test_mse_is_the_squared_distance() -> None:
    queries = l2_normalize(_randn(6, 4, seed=1))
    (prototype,) = l2_normalize(_randn(1, 4, seed=2))
    for found, query in zip(pull_mse(queries, prototype), queries, strict=True):
        expected = reference.mse(query.numpy(), prototype.numpy())
        assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("norm", ["after", "before", "both"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 4, 3, 5)])
def test_class_prototypes_are_the_equation(norm: str, shape: tuple[int, int, int, int]) -> None:
    embeddings = _randn(*shape, seed=1)
    labels = torch.randint(4, (shape[0], *shape[2:]), generator=_generator(2))
    labels[labels == 3] = 255
    found = class_prototypes(Keys.from_grid(embeddings, labels), 4, norm)
    for c in range(4):
        if (labels == c).any():
            expected = reference.positive_key(embeddings.numpy(), labels.numpy(), c, norm)
            np.testing.assert_allclose(found[c].numpy(), expected, atol=1e-12)
        else:
            assert found[c].isnan().all()


def test_class_counts_by_hand() -> None:
    assert class_counts(torch.tensor([2, 0, 255, 0, 3, 2]), 4).tolist() == [2, 0, 2, 1]


def test_balanced_queries_by_hand() -> None:
    # ceil(3 * (6/8, 0, 2/8) * 5) = ceil(11.25, 0, 3.75)
    assert num_queries(torch.tensor([6, 0, 2]), 5, "cbqs", None).tolist() == [12, 0, 4]


@pytest.mark.parametrize("size", [1, 12, 512, 1020])
@pytest.mark.parametrize(("num_classes", "base"), [(1, 3), (5, 7), (19, 128)])
@pytest.mark.parametrize("strategy", ["cbqs", "ceqs", "uniform"])
def test_number_of_queries_is_the_equation(
    size: int, num_classes: int, base: int, strategy: str
) -> None:
    labels = torch.randint(num_classes, (size,), generator=_generator(base))
    labels[labels == 1] = 255
    found = num_queries(class_counts(labels, num_classes), base, strategy, None)
    expected = reference.num_queries(labels.numpy(), num_classes, base, strategy)
    assert found.tolist() == pytest.approx([float(wanted) for wanted in expected])


def test_no_rounding_error_is_rounded_up() -> None:
    # Equal classes get exactly n each; in floating point 3 * (1 / 3) * 100 may exceed 100.
    for num_classes in range(1, 40):
        counts = torch.full((num_classes,), 49)
        assert num_queries(counts, 100, "cbqs", None).tolist() == [100] * num_classes


@pytest.mark.parametrize("strategy", ["cbqs", "ceqs", "uniform"])
def test_expected_queries_are_the_mean_of_drawn_ones(strategy: str) -> None:
    counts = torch.tensor([60, 0, 30, 10])
    generator = _generator()
    drawn = torch.stack([num_queries(counts, 20, strategy, generator) for _ in range(300)]).float()
    expected = num_queries(counts, 20, strategy, None).float()
    assert ((drawn.mean(dim=0) - expected).abs() <= 2 * drawn.std(dim=0) / 300**0.5).all()
    if strategy == "uniform":
        assert (drawn.sum(dim=1) == 4 * 20).all()


@pytest.mark.parametrize("strategy", ["cbqs", "ceqs", "uniform"])
@pytest.mark.parametrize("generator", [None, _generator()])
def test_no_label_at_all_gives_no_query(strategy: str, generator: torch.Generator | None) -> None:
    nothing = torch.zeros(4, dtype=torch.int64)
    assert not num_queries(nothing, 8, strategy, generator).any()


@pytest.mark.parametrize(("m", "halves"), [(40, [20, 20]), (7, [3, 4]), (1, [0, 1])])
def test_half_of_the_negatives_come_from_each_domain(m: int, halves: list[int]) -> None:
    # Classes with candidates in both domains, in one, in the other, in none.
    others = torch.tensor([[9, 5, 0, 0], [2, 0, 3, 0]])
    found = num_negatives(others, m, "domain_equalized", None)
    assert found.T.tolist() == [halves, [m, 0], [0, m], [0, 0]]


def test_union_follows_the_number_of_candidates() -> None:
    others = torch.tensor([[30, 5, 0, 0], [10, 0, 3, 0]])
    expected = num_negatives(others, 8, "union", None)
    assert expected.T.tolist() == [[6, 2], [8, 0], [0, 8], [0, 0]]
    drawn = num_negatives(others, 10_000, "union", _generator())
    assert drawn.sum(dim=0).tolist() == [10_000, 10_000, 10_000, 0]
    assert drawn[:, 1:3].T.tolist() == [[10_000, 0], [0, 10_000]]
    assert abs(drawn[0, 0].item() - 7500) < 2 * math.sqrt(10_000 * 0.75 * 0.25)


def test_a_lone_domain_gives_all_negatives() -> None:
    for strategy in ("source", "domain_equalized", "union"):
        found = num_negatives(torch.tensor([[4, 0]]), 7, strategy, None)
        assert found.tolist() == [[7, 0]], strategy


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_a_class_and_of_all_others_are_its_complement(seed: int) -> None:
    labels = torch.randint(6, (50,), generator=_generator(seed))
    labels[labels == 1] = 255  # absent
    rows = RowsByClass(labels, class_counts(labels, 6).tolist())
    for c in range(6):
        assert rows.of(c).tolist() == [i for i, label in enumerate(labels) if label == c]
        others = [i for i, label in enumerate(labels) if label not in (c, 255)]
        assert sorted(rows.others(c).tolist()) == others


@pytest.mark.parametrize(("wanted", "rounds"), [(40_000, 1), (150, 300)])  # above, below 200
def test_rows_are_drawn_uniformly_with_replacement(wanted: int, rounds: int) -> None:
    rows, generator = torch.arange(1000, 1200), _generator()
    times = torch.zeros(200, dtype=torch.int64)
    for _ in range(rounds):
        drawn, repeated = draw(rows, wanted, generator)
        assert repeated.sum() == wanted
        assert len(drawn) == min(wanted, 200)
        times.index_add_(0, drawn - 1000, repeated)
    # chi-square with 199 degrees of freedom: mean 199, variance 398
    expected = wanted * rounds / 200
    chi_square = ((times - expected) ** 2 / expected).sum().item()
    assert abs(chi_square - 199) < 2 * math.sqrt(398)


def test_all_rows_are_drawn_as_often_as_expected() -> None:
    rows = torch.tensor([3, 5, 8, 9])
    drawn, times = draw(rows, 6, None)
    assert torch.equal(drawn, rows)
    assert times.tolist() == [1.5] * 4
