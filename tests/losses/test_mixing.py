"""ClassMix."""

import math

import pytest
import torch

from t2sda.losses.mixing import (
    class_mix,
    draw_pasted_classes,
    mixed_pixel_weight,
    pasted_pixels,
    present_classes,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def class_mix_mask(labels: torch.Tensor, seed: int, pool: str = "batch") -> torch.Tensor:
    return pasted_pixels(
        labels, draw_pasted_classes(present_classes(labels, pool), _generator(seed))
    )


def _labels() -> torch.Tensor:
    """Two images: classes {0, 1, 2} and {1, 255}."""
    first = torch.tensor([[0, 1, 2], [2, 1, 0]])
    second = torch.tensor([[1, 1, 255], [255, 1, 1]])
    return torch.stack([first, second])


@pytest.mark.parametrize("seed", range(20))
def test_each_pixel_comes_from_exactly_one_image(seed: int) -> None:
    labels = torch.randint(6, (3, 8, 9), generator=_generator(seed))
    mask = class_mix_mask(labels, seed)
    source, target = torch.rand(2, 3, 3, 8, 9, generator=_generator(seed)).unbind()
    mixed = class_mix(source, target, mask)
    from_source, from_target = (mixed == source).all(dim=1), (mixed == target).all(dim=1)
    assert torch.equal(from_source, mask)
    assert torch.equal(from_target, ~mask)
    assert torch.equal(class_mix(labels, -labels - 1, mask) >= 0, mask)


@pytest.mark.parametrize("seed", range(20))
def test_half_of_the_batchs_classes_ignored_included(seed: int) -> None:
    pasted = draw_pasted_classes(present_classes(_labels(), "batch"), _generator(seed))
    for row in pasted:
        assert row.sum() == 2  # ceil(4 / 2) of {0, 1, 2, 255}
        assert set(row.nonzero().flatten().tolist()) <= {0, 1, 2, 255}


@pytest.mark.parametrize("seed", range(20))
def test_half_of_the_images_own_classes(seed: int) -> None:
    labels = _labels()
    mask = class_mix_mask(labels, seed, pool="image")
    pasted = [set(one[chosen].tolist()) for one, chosen in zip(labels, mask, strict=True)]
    assert len(pasted[0]) == 2  # ceil(3 / 2) of {0, 1, 2}
    assert len(pasted[1]) == 1  # ceil(2 / 2) of {1, 255}


@pytest.mark.parametrize("seed", range(10))
def test_whole_classes_are_pasted(seed: int) -> None:
    labels = torch.randint(7, (2, 10, 10), generator=_generator(seed))
    mask = class_mix_mask(labels, seed)
    for one, chosen in zip(labels, mask, strict=True):
        assert set(one[chosen].tolist()).isdisjoint(one[~chosen].tolist())


def test_every_class_is_pasted_equally_often() -> None:
    present = torch.zeros(4000, 256, dtype=torch.bool)
    present[:, [0, 3, 7, 18, 255]] = True
    share = draw_pasted_classes(present, _generator()).float().mean(dim=0)[[0, 3, 7, 18, 255]]
    # 3 of 5 classes: share 0.6, standard error sqrt(.6 * .4 / 4000) = 0.0077; four of them
    assert (share - 0.6).abs().max() < 0.031
    assert math.isclose(share.sum().item(), 3.0, abs_tol=1e-5)


def test_a_rank_finds_its_rows_in_the_draw_for_the_whole_batch() -> None:
    labels = _labels()
    whole = class_mix_mask(labels, 5)
    pool = present_classes(labels[:1])[0] | present_classes(labels[1:])[0]
    pasted = draw_pasted_classes(pool.expand(2, -1), _generator(5))
    assert torch.equal(pasted_pixels(labels[1:], pasted[1:]), whole[1:])


def test_weight_of_mixed_pixels_by_hand() -> None:
    mask = torch.tensor([[[True, True, False, False]]])
    valid = torch.tensor([[[True, False, True, False]]])
    weight = mixed_pixel_weight(mask, torch.tensor(0.25), valid)
    assert weight.tolist() == [[[1.0, 1.0, 0.25, 0.0]]]
    two = mixed_pixel_weight(mask.expand(2, -1, -1), torch.tensor([0.5, 0.75]), valid)
    assert two[:, 0].tolist() == [[1.0, 1.0, 0.5, 0.0], [1.0, 1.0, 0.75, 0.0]]


def test_unknown_pool_and_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="known: batch, image"):
        present_classes(_labels(), pool="pixel")
    with pytest.raises(ValueError, match="crop both alike"):
        class_mix(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5), torch.ones(1, 4, 4).bool())
