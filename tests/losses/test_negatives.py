"""Negatives: Eq. (7), (8), (10) and domain-equalised sampling."""

import math

import pytest
import torch
from torch import Tensor

from t2sda.losses.negatives import (
    expected_negatives,
    has_negatives,
    sample_negatives,
    unreliable_labels,
)
from t2sda.losses.sampling import PositionsByClass, positions_by_class
from tests.references import pull as reference

NUM_CLASSES = 6
NOTHING = torch.empty(0, 4, 4, dtype=torch.int64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _labels(shape: tuple[int, ...], seed: int) -> Tensor:
    labels = torch.randint(NUM_CLASSES, shape, generator=_generator(seed))
    labels[labels == 1] = 255
    return labels


def _positions(*labels: Tensor) -> list[PositionsByClass]:
    return [positions_by_class(one, NUM_CLASSES) for one in labels]


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 8, 8)])
def test_unreliable_labels_are_the_candidates_of_the_equation(shape: tuple[int, ...]) -> None:
    pseudo_labels = _labels(shape, 1)
    confidence = torch.rand(shape, generator=_generator(2))
    threshold = torch.tensor(0.6)
    candidates = unreliable_labels(pseudo_labels, confidence, threshold)
    for c in range(NUM_CLASSES):
        found = [label not in (c, 255) for label in candidates.flatten().tolist()]
        expected = [
            label != 255 and reference.is_target_negative(label, value, 0.6, c)
            for label, value in zip(
                pseudo_labels.flatten().tolist(), confidence.flatten().tolist(), strict=True
            )
        ]
        assert found == expected


def test_a_confidence_at_the_threshold_is_reliable() -> None:
    found = unreliable_labels(torch.tensor([3, 4]), torch.tensor([0.5, 0.4]), torch.tensor(0.5))
    assert found.tolist() == [255, 4]


@pytest.mark.parametrize("strategy", ["domain_equalized", "union", "source"])
@pytest.mark.parametrize("seed", range(5))
def test_sampled_negatives_are_of_another_class_and_labelled(strategy: str, seed: int) -> None:
    source, target = _labels((2, 5, 4), seed), _labels((1, 3, 3), seed + 100)
    drawn = sample_negatives(*_positions(source, target), 40, strategy, _generator(seed))
    pool = torch.cat([source.flatten(), target.flatten()])
    for c in range(NUM_CLASSES):
        assert all(reference.is_source_negative(label, c) for label in pool[drawn[c]].tolist())


@pytest.mark.parametrize(("num_negatives", "from_source"), [(40, 20), (7, 3), (1, 0)])
def test_half_of_the_negatives_come_from_each_domain(num_negatives: int, from_source: int) -> None:
    source, target = _labels((2, 5, 4), 0), _labels((1, 3, 3), 1)
    drawn = sample_negatives(
        *_positions(source, target), num_negatives, "domain_equalized", _generator()
    )
    assert drawn.shape == (NUM_CLASSES, num_negatives)
    assert ((drawn < source.numel()).sum(dim=1) == from_source).all()


def test_union_follows_the_number_of_candidates() -> None:
    # Class 0 has 30 source and 10 target candidates, class 2 has 0 and 10, class 1 both.
    source = torch.tensor([2] * 30).view(1, 5, 6)
    target = torch.tensor([3] * 10).view(1, 2, 5)
    positions = _positions(source, target)
    drawn = sample_negatives(*positions, 10_000, "union", _generator())
    share = (drawn < 30).float().mean(dim=1)
    assert abs(share[0].item() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 10_000)
    assert share[2] == 0
    assert share[3] == 1


@pytest.mark.parametrize("strategy", ["domain_equalized", "union"])
def test_an_empty_side_is_made_up_for_by_the_other(strategy: str) -> None:
    # All of the source is class 2: it holds no negative of class 2, and all of them of class 3.
    source, target = torch.full((1, 4, 4), 2), torch.full((1, 4, 4), 3)
    source[0, 0], target[0, 0] = 255, 255
    positions = _positions(source, target)
    drawn = sample_negatives(*positions, 20, strategy, _generator())
    assert (drawn[2] >= 20).all()
    assert ((drawn[3] >= 4) & (drawn[3] < 16)).all()
    assert has_negatives(*positions, "union").all()


@pytest.mark.parametrize("target", [NOTHING, torch.full((1, 4, 4), 255)])
def test_without_target_candidates_all_come_from_the_source(target: Tensor) -> None:
    source = _labels((1, 4, 4), 3)
    drawn = sample_negatives(*_positions(source, target), 30, "domain_equalized", _generator())
    assert (drawn < 16).all()


def test_source_negatives_leave_the_target_alone() -> None:
    source, target = torch.full((1, 4, 4), 2), torch.full((1, 4, 4), 3)
    positions = _positions(source, target)
    drawn = sample_negatives(*positions, 20, "source", _generator())
    assert (drawn[3] < 16).all()
    assert has_negatives(*positions, "source").tolist() == [c != 2 for c in range(NUM_CLASSES)]
    assert not expected_negatives(*positions, 20, "source")[:, 16:].any()


def test_one_class_alone_has_no_negatives() -> None:
    positions = _positions(torch.full((1, 4, 4), 2), torch.full((1, 4, 4), 2))
    assert has_negatives(*positions, "union").tolist() == [True, True, False, True, True, True]
    nothing = _positions(torch.full((1, 4, 4), 255), NOTHING)
    assert not has_negatives(*nothing, "union").any()
    assert not expected_negatives(*nothing, 10, "union").any()


@pytest.mark.parametrize("strategy", ["domain_equalized", "union", "source"])
@pytest.mark.parametrize("no_target", [False, True])
def test_draws_are_uniform_and_expected_negatives_their_mean(
    strategy: str, no_target: bool
) -> None:
    source = _labels((1, 5, 4), 7)
    target = NOTHING if no_target else _labels((1, 3, 3), 8)
    positions = _positions(source, target)
    num_negatives = 60_000
    drawn = sample_negatives(*positions, num_negatives, strategy, _generator(9))
    expected = expected_negatives(*positions, num_negatives, strategy)
    for c in range(NUM_CLASSES):
        times = torch.bincount(drawn[c], minlength=expected.shape[1])
        candidates = expected[c] > 0
        assert torch.equal(times > 0, candidates)
        deviation = (times - expected[c])[candidates] ** 2 / expected[c][candidates]
        freedom = int(candidates.sum()) - 1
        assert abs(deviation.sum().item() - freedom) < 4.5 * math.sqrt(2 * freedom)
        assert expected[c].sum().item() == pytest.approx(num_negatives, rel=1e-6)


def test_expected_negatives_by_hand() -> None:
    # m = 8: 4 over the two source candidates of class 0, 4 over its one target candidate.
    source = torch.tensor([[[0, 2, 3]]])
    target = torch.tensor([[[0, 255, 4]]])
    positions = _positions(source, target)
    found = expected_negatives(*positions, 8, "domain_equalized")
    assert found[0].tolist() == [0, 2, 2, 0, 0, 4]
    assert found[4].tolist() == pytest.approx([4 / 3] * 3 + [4, 0, 0])
    assert expected_negatives(*positions, 6, "union")[0].tolist() == [0, 2, 2, 0, 0, 2]


def test_an_unknown_strategy_is_refused() -> None:
    positions = _positions(_labels((1, 2, 2), 0), NOTHING)
    with pytest.raises(ValueError, match="'denps'; known: domain_equalized, union, source"):
        sample_negatives(*positions, 4, "denps", _generator())
    with pytest.raises(ValueError, match="'denps'; known: domain_equalized, union, source"):
        expected_negatives(*positions, 4, "denps")
