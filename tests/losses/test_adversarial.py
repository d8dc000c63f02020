"""What discriminators see and how wrong they are, against NumPy and values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from t2sda.losses.adversarial import (
    DISCRIMINATOR_INPUTS,
    GAN_LOSSES,
    discriminator_error,
    self_information,
)
from t2sda.losses.entropy import mean_normalized_entropy
from tests.references import adversarial as reference


@pytest.mark.parametrize("name", DISCRIMINATOR_INPUTS)
def test_what_a_discriminator_sees_is_the_equation(name: str) -> None:
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    found = DISCRIMINATOR_INPUTS[name](logits).numpy()
    np.testing.assert_allclose(found, getattr(reference, name)(logits.numpy()), rtol=1e-12)


def test_self_information_sums_to_the_normalised_entropy_and_is_finite_where_certain() -> None:
    logits = torch.randn(1, 7, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    summed = self_information(logits).sum(dim=1).mean()
    torch.testing.assert_close(summed, mean_normalized_entropy(logits))
    certain = torch.tensor([1e4, 0.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    self_information(certain).sum().backward()
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()


@pytest.mark.parametrize("gan", GAN_LOSSES)
@pytest.mark.parametrize("domain", [0.0, 1.0])
def test_an_error_is_the_mean_over_the_grid(gan: str, domain: float) -> None:
    answers = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(2)).double()
    expected = reference.error(answers.numpy(), domain, gan)
    found = discriminator_error(answers, domain, gan).item()
    assert found == pytest.approx(expected, rel=1e-12)


def test_errors_by_hand() -> None:
    undecided = torch.zeros(1, 1, 2, 2)
    assert discriminator_error(undecided, 1.0, "vanilla").item() == pytest.approx(math.log(2))
    halves = torch.full((1, 1, 2, 2), 0.5)
    assert discriminator_error(halves, 0.0, "least_squares").item() == pytest.approx(0.25)
    assert discriminator_error(halves.half(), 0.0, "vanilla").dtype == torch.float32
