"""Eq. (8), (9) and (S2)."""

import numpy as np
import pytest
import torch

from t2sda.losses.pseudo_labels import (
    confidence_threshold,
    pseudo_label_quality,
    pseudo_label_quality_per_image,
    unreliable_labels,
)
from tests.references import pull
from tests.references import segmentation as reference


def test_quality_by_hand() -> None:
    # Per image 2/4 and 1/4; a pixel exactly at the threshold counts.
    confidence = torch.tensor([[[0.968, 0.99], [0.5, 0.967]], [[1.0, 0.1], [0.2, 0.3]]])
    assert pseudo_label_quality(confidence, 0.968).item() == 3 / 8
    assert pseudo_label_quality_per_image(confidence, 0.968).tolist() == [0.5, 0.25]


def test_quality_is_the_equation_over_the_batch() -> None:
    confidence = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(1))
    expected = reference.pseudo_label_quality(confidence.numpy(), 0.4)
    assert pseudo_label_quality(confidence, 0.4).item() == pytest.approx(expected, abs=1e-6)


def test_quality_of_an_image_is_the_equation() -> None:
    confidence = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(2))
    expected = reference.quality_of_images(confidence.numpy(), 0.7)
    found = pseudo_label_quality_per_image(confidence, 0.7)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_confidence_threshold_by_hand() -> None:
    # Sorted .1 .2 .4 .8: the median lies half-way between .2 and .4, the 25 % percentile at rank
    # .75, three quarters of the way from .1 to .2.
    confidence = torch.tensor([[[0.8, 0.1], [0.4, 0.2]]])
    torch.testing.assert_close(confidence_threshold(confidence, 0.5), torch.tensor(0.3))
    torch.testing.assert_close(confidence_threshold(confidence, 0.25), torch.tensor(0.175))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (2, 40, 41)])
def test_confidence_threshold_is_numpys_percentile(
    fraction: float, shape: tuple[int, int, int]
) -> None:
    confidence = torch.rand(shape, generator=torch.Generator().manual_seed(shape[2]))
    expected = np.percentile(confidence.double().numpy(), 100 * fraction)
    assert confidence_threshold(confidence, fraction).item() == pytest.approx(expected, abs=1e-6)


def test_the_given_share_lies_below_the_threshold() -> None:
    confidence = torch.rand(2, 50, 50, generator=torch.Generator().manual_seed(2))
    below = (confidence < confidence_threshold(confidence, 0.3)).sum().item()
    assert below == 0.3 * confidence.numel()


def test_more_elements_than_torch_quantile_takes() -> None:
    confidence = torch.linspace(0, 1, 2**24 + 2)
    assert confidence_threshold(confidence, 0.5).item() == pytest.approx(0.5, abs=1e-6)


def test_a_fraction_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unreliable_fraction is 50.*\[0, 1\]"):
        confidence_threshold(torch.rand(1, 2, 2), 50)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 8, 8)])
def test_unreliable_labels_are_the_candidates_of_the_equation(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    pseudo_labels = torch.randint(5, shape, generator=generator)
    confidence = torch.rand(shape, generator=generator)
    candidates = unreliable_labels(pseudo_labels, confidence, torch.tensor(0.6))
    for c in range(5):
        found = [label not in (c, 255) for label in candidates.flatten().tolist()]
        expected = [
            pull.is_target_negative(label, value, 0.6, c)
            for label, value in zip(
                pseudo_labels.flatten().tolist(), confidence.flatten().tolist(), strict=True
            )
        ]
        assert found == expected


def test_a_confidence_at_the_threshold_is_reliable() -> None:
    found = unreliable_labels(torch.tensor([3, 4]), torch.tensor([0.5, 0.4]), torch.tensor(0.5))
    assert found.tolist() == [255, 4]
