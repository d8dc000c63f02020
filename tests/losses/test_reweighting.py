"""Eq. (12) and (13), and the static weights."""

import numpy as np
import pytest
import torch

from t2sda.losses.reweighting import (
    class_confidence,
    class_confidence_sums,
    dynamic_class_weights,
    mean_class_confidence,
    pixel_class_weight,
    static_class_weights,
)
from tests.references import reweighting as reference


def test_dynamic_class_weights_by_hand() -> None:
    # Eq. (12): gaps (.1, .4) / .4 -> (.25, 1) ** .5 = (.5, 1) -> normalised (1/3, 2/3)
    weights = dynamic_class_weights(torch.tensor([0.9, 0.6]), exponent=0.5)
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 2 / 3]))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_dynamic_class_weights_are_the_equation(exponent: float) -> None:
    confidence = torch.rand(19, generator=torch.Generator().manual_seed(0))
    confidence[4], confidence[7] = 1.0, 0.0
    weights = dynamic_class_weights(confidence, exponent)
    expected = reference.dynamic_class_weights(confidence.numpy(), exponent)
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-6)
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-6)


def test_the_exponent_has_an_effect() -> None:
    confidence = torch.tensor([0.9, 0.6, 0.3])
    weights = [dynamic_class_weights(confidence, exponent) for exponent in (0.0, 0.5, 1.0)]
    assert torch.equal(weights[0], torch.full((3,), 1 / 3))
    assert weights[0][2] < weights[1][2] < weights[2][2]


@pytest.mark.parametrize("confident", [1.0, 1.0 + 1e-7])
def test_full_confidence_everywhere_gives_uniform_weights(confident: float) -> None:
    weights = dynamic_class_weights(torch.full((5,), confident), exponent=0.5)
    torch.testing.assert_close(weights, torch.full((5,), 0.2))


def test_rounding_above_one_gives_no_nan() -> None:
    weights = dynamic_class_weights(torch.tensor([1.0 + 1e-6, 0.5]), exponent=0.5)
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 17, 9)])
def test_class_confidence_is_the_equation(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(shape[1])
    confidence = torch.rand(shape, generator=generator)
    labels = torch.randint(5, shape, generator=generator)
    labels[labels == 2] = 255  # class 2 is never predicted, and some pixels are ignored
    found = class_confidence(confidence, labels, 5)
    expected = reference.class_confidence(confidence.numpy(), labels.numpy(), 5)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert found[2] == 0


def test_one_class_alone_is_the_equation() -> None:
    confidence = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(5))
    labels = torch.full((1, 5, 7), 3)
    found = dynamic_class_weights(class_confidence(confidence, labels, 4), 0.5)
    conf = reference.class_confidence(confidence.numpy(), labels.numpy(), 4)
    np.testing.assert_allclose(found.numpy(), reference.dynamic_class_weights(conf, 0.5), atol=1e-6)


def test_classes_that_do_not_count_weigh_nothing() -> None:
    confidence = torch.tensor([0.9, 0.0, 0.6])
    weights = dynamic_class_weights(confidence, 0.5, torch.tensor([True, False, True]))
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 0.0, 2 / 3]))
    none_counted = dynamic_class_weights(confidence, 0.5, torch.zeros(3, dtype=torch.bool))
    assert torch.equal(none_counted, dynamic_class_weights(confidence, 0.5))


def test_a_class_never_predicted_gets_the_largest_weight() -> None:
    labels = torch.tensor([[[0, 0], [1, 1]]])
    confidence = torch.tensor([[[0.9, 0.8], [0.5, 0.4]]])
    weights = dynamic_class_weights(class_confidence(confidence, labels, 3), 0.5)
    assert weights.argmax() == 2


def test_all_ignored_gives_uniform_weights() -> None:
    labels = torch.full((1, 2, 2), 255)
    weights = dynamic_class_weights(class_confidence(torch.rand(1, 2, 2), labels, 4), 0.5)
    torch.testing.assert_close(weights, torch.full((4,), 0.25))


def test_sums_of_two_parts_give_the_whole() -> None:
    generator = torch.Generator().manual_seed(3)
    confidence = torch.rand(2, 6, 6, generator=generator)
    labels = torch.randint(4, (2, 6, 6), generator=generator)
    labels[0][labels[0] == 3] = 255  # class 3 is on one rank only
    parts = [class_confidence_sums(confidence[i : i + 1], labels[i : i + 1], 4) for i in (0, 1)]
    sums, counts = (first + second for first, second in zip(*parts, strict=True))
    whole = class_confidence(confidence, labels, 4)
    torch.testing.assert_close(mean_class_confidence(sums, counts).float(), whole)


def test_static_weights_keep_the_ratios_of_the_supplement() -> None:
    weights = static_class_weights()
    assert weights.shape == (19,)
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (weights[17] / weights[0]).item() == pytest.approx(1.1529 / 0.8373, rel=1e-6)


def test_pixel_class_weight_by_hand() -> None:
    weight = pixel_class_weight(torch.tensor([[[1, 0, 255]]]), torch.tensor([0.25, 0.75]))
    assert weight.tolist() == [[[0.75, 0.25, 0.0]]]
