"""Queries: Eq. (4), (11), section 3.3."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.losses.sampling import (
    QueryGroups,
    class_distribution,
    every_query,
    expected_num_queries,
    labels_on_grid,
    num_queries,
    positions_by_class,
    sample_queries,
)
from t2sda.structures import FeatureSpec
from tests.references import pull as reference


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _labels(shape: tuple[int, ...], num_classes: int, seed: int = 0) -> Tensor:
    """Random labels; class 1 is absent, some positions are ignored."""
    labels = torch.randint(num_classes, shape, generator=_generator(seed))
    labels[labels == 1] = 255
    return labels


def _multiplicity_of_positions(groups: QueryGroups, num_positions: int) -> Tensor:
    times = torch.zeros(num_positions)
    return times.index_add(0, groups.positions.flatten(), groups.multiplicity.flatten())


def test_labels_without_offset_are_the_nearest_of_interpolate() -> None:
    labels = torch.randint(256, (2, 64, 32), generator=_generator())
    expected = F.interpolate(labels[:, None].double(), (8, 4), mode="nearest")[:, 0].long()
    assert torch.equal(labels_on_grid(labels, FeatureSpec(1, stride=8)), expected)


def test_labels_on_grid_by_hand_for_labels_confidences_and_masks() -> None:
    # Stride 4, centre 2.5 pixels in: rows 2 and, of 6 beyond the image, 4; columns 2 likewise.
    labels = torch.arange(15).view(1, 5, 3)
    spec = FeatureSpec(1, stride=4, offset=2.5)
    assert labels_on_grid(labels, spec).tolist() == [[[8], [14]]]
    assert labels_on_grid(labels / 16, spec).tolist() == [[[8 / 16], [14 / 16]]]
    assert labels_on_grid(labels > 8, spec).tolist() == [[[False], [True]]]


@pytest.mark.parametrize("offset", [0.0, 1.5, 3.0])
def test_a_cell_has_the_label_at_its_centre_and_not_at_its_corner(offset: float) -> None:
    labels = torch.full((1, 8, 8), 7)
    labels[0, int(offset) :: 4, int(offset) :: 4] = 3
    assert (labels_on_grid(labels, FeatureSpec(1, 4, offset)) == 3).all()


def test_positions_are_sorted_by_class() -> None:
    labels = torch.tensor([[[2, 0, 255], [0, 3, 2]]])
    positions = positions_by_class(labels, 4)
    assert positions.order.tolist() == [1, 3, 0, 5, 4, 2]
    assert positions.counts.tolist() == [2, 0, 2, 1]
    assert positions.total == 5


def test_class_distribution_by_hand() -> None:
    # Eq. (11): 6, 0 and 2 of 8 labelled positions
    assert class_distribution(torch.tensor([6, 0, 2])).tolist() == [0.75, 0.0, 0.25]
    assert class_distribution(torch.tensor([0, 0])).tolist() == [0.0, 0.0]


def test_balanced_queries_by_hand() -> None:
    # ceil(3 * (6/8, 0, 2/8) * 5) = ceil(11.25, 0, 3.75)
    found = num_queries(torch.tensor([6, 0, 2]), 5, "cbqs", _generator())
    assert found.tolist() == [12, 0, 4]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 4), (2, 16, 16), (2, 30, 17)])
@pytest.mark.parametrize(("num_classes", "base"), [(1, 3), (5, 7), (19, 128)])
def test_balanced_queries_are_the_equation(
    shape: tuple[int, ...], num_classes: int, base: int
) -> None:
    labels = _labels(shape, num_classes, seed=base)
    counts = positions_by_class(labels, num_classes).counts
    found = num_queries(counts, base, "cbqs", _generator())
    assert found.tolist() == reference.num_queries(labels.numpy(), num_classes, base)
    assert found.sum() <= num_classes * (base + 1)


def test_no_rounding_error_is_rounded_up() -> None:
    # Equal classes get exactly n each; in floating point 3 * (1 / 3) * 100 may exceed 100.
    for num_classes in range(1, 40):
        counts = torch.full((num_classes,), 49)
        found = num_queries(counts, 100, "cbqs", _generator())
        assert found.tolist() == [100] * num_classes


def test_equalized_queries_are_n_for_each_class_present() -> None:
    found = num_queries(torch.tensor([600, 0, 2]), 5, "ceqs", _generator())
    assert found.tolist() == [5, 0, 5]


def test_uniform_queries_follow_the_positions() -> None:
    counts = torch.tensor([60, 0, 30, 10])
    found = num_queries(counts, 5000, "uniform", _generator())
    assert found.sum() == 4 * 5000
    assert found[1] == 0
    share = counts / 100
    standard_error = (share * (1 - share) / 20000).sqrt()
    assert ((found / 20000 - share).abs() <= 4 * standard_error).all()


@pytest.mark.parametrize("strategy", ["cbqs", "ceqs", "uniform"])
def test_expected_queries_are_the_mean_of_drawn_ones(strategy: str) -> None:
    counts = torch.tensor([60, 0, 30, 10])
    generator = _generator()
    drawn = torch.stack([num_queries(counts, 20, strategy, generator) for _ in range(300)]).float()
    expected = expected_num_queries(counts, 20, strategy).float()
    standard_error = drawn.std(dim=0) / 300**0.5
    assert ((drawn.mean(dim=0) - expected).abs() <= 4 * standard_error).all()


@pytest.mark.parametrize("strategy", ["cbqs", "ceqs", "uniform"])
def test_no_label_at_all_gives_no_query(strategy: str) -> None:
    assert num_queries(torch.zeros(4, dtype=torch.int64), 8, strategy, _generator()).sum() == 0


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="'balanced'; known: cbqs, ceqs, uniform"):
        num_queries(torch.tensor([1, 2]), 4, "balanced", _generator())


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 16, 16), (2, 40, 40)])  # smaller and larger
@pytest.mark.parametrize("strategy", ["cbqs", "ceqs", "uniform"])
def test_sampled_queries_are_of_their_class_and_n_q_in_number(
    shape: tuple[int, ...], strategy: str
) -> None:
    num_classes, base = 7, 90
    labels = _labels(shape, num_classes)
    positions = positions_by_class(labels, num_classes)
    wanted = num_queries(positions.counts, base, strategy, _generator(1))
    groups = sample_queries(positions, wanted, num_classes * (base + 1), _generator(2))
    real = groups.multiplicity > 0
    label_of_query = labels.flatten()[groups.positions]
    assert (label_of_query == groups.classes[:, None])[real].all()
    found = torch.zeros(num_classes).index_add(0, groups.classes, groups.multiplicity.sum(dim=1))
    assert torch.equal(found.long(), wanted)
    assert torch.equal(groups.multiplicity, groups.multiplicity.round())


def test_an_absent_class_gets_no_query() -> None:
    positions = positions_by_class(torch.zeros(1, 5, 5, dtype=torch.int64), 3)
    groups = sample_queries(positions, torch.tensor([12, 0, 0]), 15, _generator())
    assert set(groups.classes[groups.multiplicity.sum(dim=1) > 0].tolist()) == {0}


@pytest.mark.parametrize("max_queries", [90_000, 40])
def test_positions_are_drawn_uniformly_with_replacement(
    max_queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 6 positions of class 0 and 30 of class 1; merged draws (36 < max_queries) and plain ones
    labels = torch.tensor([0] * 6 + [1] * 30).view(1, 6, 6)
    times = torch.zeros(36)
    positions = positions_by_class(labels, 2)
    if max_queries == 40:
        monkeypatch.setattr("t2sda.losses.sampling.reads_are_free", lambda _: False)
        labels = labels.repeat(1, 2, 1)  # 72 positions > 40
        positions = positions_by_class(labels, 2)
        times = torch.zeros(72)
    wanted = torch.tensor([max_queries // 3, max_queries // 2])
    rounds = 60_000 // max_queries + 1
    generator = _generator(3)
    for _ in range(rounds):
        groups = sample_queries(positions, wanted, max_queries, generator)
        times += _multiplicity_of_positions(groups, len(times))
    for c in (0, 1):
        drawn, members = rounds * int(wanted[c]), int((labels == c).sum())
        expected = drawn / members
        # chi-square with members - 1 degrees of freedom: mean members - 1, variance twice that
        chi_square = ((times[labels.flatten() == c] - expected) ** 2 / expected).sum().item()
        assert abs(chi_square - (members - 1)) < 4 * math.sqrt(2 * (members - 1))


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 16, 16)])
def test_every_query_takes_each_labelled_position_alike(shape: tuple[int, ...]) -> None:
    labels = _labels(shape, 7)
    positions = positions_by_class(labels, 7)
    wanted = num_queries(positions.counts, 50, "cbqs", _generator())
    times = _multiplicity_of_positions(every_query(positions, wanted), labels.numel())
    for position, label in enumerate(labels.flatten().tolist()):
        share = 0.0 if label == 255 else (wanted[label] / positions.counts[label]).item()
        assert times[position].item() == pytest.approx(share, rel=1e-6)


def test_shapes_do_not_depend_on_the_labels() -> None:
    shapes = set()
    for labels in (torch.zeros(2, 9, 9), torch.full((2, 9, 9), 255), _labels((2, 9, 9), 5)):
        positions = positions_by_class(labels.long(), 5)
        wanted = num_queries(positions.counts, 6, "cbqs", _generator())
        groups = sample_queries(positions, wanted, 35, _generator())
        shapes.add((groups.positions.shape, every_query(positions, wanted).positions.shape))
    assert len(shapes) == 1
