"""The heads give the numbers, and the gradients, of the order their papers write down."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from t2sda.modeling.heads.base import Head
from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.heads.segformer import SegFormerHead
from t2sda.structures import FeatureSpec
from tests.references.plain_heads import PlainDAFormer, PlainSegFormer

SPECS = (FeatureSpec(6, 4), FeatureSpec(10, 8), FeatureSpec(14, 16), FeatureSpec(18, 32))
BOTH = pytest.mark.parametrize(
    ("build", "plain"), [(SegFormerHead, PlainSegFormer), (DAFormerHead, PlainDAFormer)]
)


def random_head(build: Callable[..., Head]) -> Head:
    """No tensor at its start: BatchNorm's statistics, scales and shifts matter."""
    head = build(SPECS, num_classes=5, channels=8, dropout=0.0)
    with torch.no_grad():
        for name, tensor in head.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2.0) if "var" in name else tensor.normal_()
    return head


def features_of(height: int, width: int) -> tuple[Tensor, ...]:
    return tuple(
        torch.randn(2, spec.channels, -(-height // spec.stride), -(-width // spec.stride))
        for spec in SPECS
    )


@BOTH
@pytest.mark.parametrize("mode", ["training", "evaluation", "teacher"])
def test_logits_are_those_of_the_plain_order(
    build: Callable[..., Head], plain: Callable[..., nn.Module], mode: str
) -> None:
    head = random_head(build).train(mode == "training")
    for module in head.modules():
        if mode == "teacher" and isinstance(module, nn.BatchNorm2d):
            module.training = True  # as MeanTeacher has it
    features = features_of(100, 140)
    with torch.no_grad():
        expected, found = plain(head)(features), head(features)
    # float32 sums in another order, relative to the largest logit
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@BOTH
def test_gradients_are_those_of_the_plain_order(
    build: Callable[..., Head], plain: Callable[..., nn.Module]
) -> None:
    head = random_head(build).train().double()
    features = tuple(level.double() for level in features_of(60, 90))
    gradients = []
    for network in (head, plain(head)):
        head.zero_grad()
        inputs = [level.clone().requires_grad_() for level in features]
        network(inputs).sin().sum().backward()
        gradients.append([item.grad for item in (*inputs, *head.parameters())])
    for own, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(own, reference, atol=1e-9, rtol=1e-8)


@BOTH
def test_batch_statistics_are_recorded_as_in_the_plain_order(
    build: Callable[..., Head], plain: Callable[..., nn.Module]
) -> None:
    head = random_head(build).train().double()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    features = tuple(level.double() for level in features_of(60, 90))
    recorded = []
    for network in (head, plain(head)):
        head.load_state_dict(before)
        network(features)
        recorded.append([buffer.clone() for buffer in head.buffers()])
    for own, reference in zip(*recorded, strict=True):
        torch.testing.assert_close(own, reference, atol=1e-10, rtol=1e-9)
    assert any(not torch.equal(buffer, before[name]) for name, buffer in head.named_buffers())


def test_a_single_level_is_enough() -> None:
    for build in (SegFormerHead, DAFormerHead):
        head = build(SPECS[:1], num_classes=3, channels=8).eval()
        assert head(features_of(32, 48)[:1]).shape == (2, 3, 8, 12)
