"""What every registered meta-architecture promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.meta_arch.base import build_meta_arch
from t2sda.registry import META_ARCHS
from t2sda.structures import DomainBatch
from tests.meta_arch.conftest import config_of, make_batch, step_of  # noqa: F401


@pytest.mark.parametrize("name", META_ARCHS.names())
def test_every_pass_gives_finite_losses_and_gradients_to_the_student_alone(
    name: str,
    make_batch: Callable[..., DomainBatch],  # noqa: F811
) -> None:
    meta_arch = build_meta_arch(config_of(name), CITYSCAPES_19).train()
    step = step_of(make_batch())
    with torch.no_grad():
        step.teacher = meta_arch.teach(step)
    for pass_name in meta_arch.pass_names:
        losses = meta_arch(pass_name, step)
        assert losses
        for loss_name, loss in losses.items():
            assert loss_name.startswith("loss_")
            assert loss.shape == ()
            assert torch.isfinite(loss)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        step.add_losses(losses)
    for parameter_name, parameter in meta_arch.named_parameters():
        if parameter_name.startswith("student."):
            assert parameter.grad is not None, f"{parameter_name} learns nothing"
        else:
            assert parameter.grad is None, f"{parameter_name} must not learn"


@pytest.mark.parametrize("name", META_ARCHS.names())
def test_state_dict_round_trip(name: str) -> None:
    first, second = (build_meta_arch(config_of(name), CITYSCAPES_19) for _ in range(2))
    second.load_state_dict(first.state_dict())
    for own, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("name", META_ARCHS.names())
def test_a_teacher_is_there_when_it_is_announced(name: str) -> None:
    meta_arch = build_meta_arch(config_of(name), CITYSCAPES_19)
    assert hasattr(meta_arch, "teacher") == meta_arch.has_teacher
