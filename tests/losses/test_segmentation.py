"""Cross entropy against Eq. (1) and (S1) in float64."""

import pytest
import torch

from t2sda.losses.segmentation import cross_entropy
from tests.references import segmentation as reference


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 19, 5, 3), (3, 4, 1, 1)])
def test_weighted_cross_entropy_is_the_equation(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    logits = torch.randn(shape, generator=generator)
    pixels = (shape[0], *shape[2:])
    labels = torch.randint(shape[1], pixels, generator=generator)
    labels[torch.rand(pixels, generator=generator) < 0.3] = 255
    weight = torch.rand(pixels, generator=generator)
    for given, in_words in ((weight, weight), (None, torch.ones(pixels))):
        expected = reference.cross_entropy(logits.numpy(), labels.numpy(), in_words.numpy())
        assert cross_entropy(logits, labels, given).item() == pytest.approx(expected, abs=1e-6)


def test_ignored_pixels_stay_in_the_denominator() -> None:
    # Uniform logits of two classes: log 2 a pixel; half of the pixels are ignored.
    labels = torch.tensor([[[0, 255], [255, 1]]])
    loss = cross_entropy(torch.zeros(1, 2, 2, 2), labels)
    torch.testing.assert_close(loss, torch.tensor(2.0).log() / 2)


def test_all_ignored_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_two_halves_with_the_mean_count_average_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, 4, generator=generator)
    labels = torch.randint(5, (3, 4, 4), generator=generator)
    mean_count = torch.tensor(labels.numel() / 2)
    parts = [
        cross_entropy(logits[part], labels[part], normalizer=mean_count)
        for part in (slice(0, 1), slice(1, 3))  # unequal parts on two ranks
    ]
    torch.testing.assert_close(sum(parts) / 2, cross_entropy(logits, labels))


def test_half_precision_logits_give_a_float32_loss() -> None:
    logits = torch.randn(1, 3, 4, 4).half()
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert cross_entropy(logits, labels).dtype == torch.float32
    assert cross_entropy(logits, labels) == cross_entropy(logits.float(), labels)


@pytest.mark.parametrize("wrong", [3, 254, -1])
def test_a_label_out_of_range_is_named(wrong: int) -> None:
    labels = torch.tensor([[[0, wrong]]])
    with pytest.raises(ValueError, match=rf"ids \[.*{wrong}.*3 classes.*taxonomy"):
        cross_entropy(torch.zeros(1, 3, 1, 2), labels)


def test_shapes_that_do_not_fit_are_refused() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="upsample the logits"):
        cross_entropy(logits, torch.zeros(2, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="pixel_weight"):
        cross_entropy(logits, torch.zeros(2, 4, 4, dtype=torch.int64), torch.ones(4, 4))
