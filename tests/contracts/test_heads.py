"""Every registered head, with the default settings, keeps the contract of Head."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401
from t2sda.config import load_config
from t2sda.modeling.heads.base import Head
from t2sda.registry import HEADS
from t2sda.structures import FeatureSpec

SPECS = tuple(FeatureSpec(channels, stride) for channels, stride in [(8, 4), (12, 8), (16, 16)])
NUM_CLASSES = 5
SIZE = (64, 96)


def build(name: str, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    cfg = load_config(None, ["MODEL.HEAD.NAME", name])
    return HEADS.get(name).from_config(cfg, SPECS, NUM_CLASSES)


def features_of(size: tuple[int, int]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(
            2, spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride),
            generator=generator,
        )
        for spec in SPECS
    )  # fmt: skip


@pytest.fixture(params=HEADS.names(), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def head(name: str) -> Head:
    """Shared by the tests that change nothing in it."""
    return build(name).eval()


@pytest.mark.parametrize("size", [SIZE, (65, 97), (71, 33)])
def test_logits_are_on_the_finest_grid_that_is_read(head: Head, size: tuple[int, int]) -> None:
    assert head.num_classes == NUM_CLASSES
    with torch.no_grad():
        logits = head(features_of(size))
    stride = SPECS[head.levels_read(len(SPECS))[0]].stride
    grid = [head.upscaling * -(-side // stride) for side in size]
    assert logits.shape == (2, NUM_CLASSES, *grid)
    assert logits.isfinite().all()


def test_every_parameter_and_every_level_that_is_read_gets_a_gradient(name: str) -> None:
    head = build(name).train()
    features = tuple(level.requires_grad_() for level in features_of(SIZE))
    head(features).square().mean().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{key} has no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {key} is not finite"
    used = [index for index, level in enumerate(features) if level.grad is not None]
    assert tuple(used) == head.levels_read(len(SPECS))
    for index in used:
        gradient = features[index].grad
        assert gradient is not None
        assert gradient.any(), f"level {index} has no influence"


@torch.no_grad()
@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_dropout_alone_makes_training_random(name: str, probability: float) -> None:
    head = build(name).train()
    layers = [module for module in head.modules() if isinstance(module, nn.Dropout2d)]
    for layer in layers:
        layer.p = probability
    first, second = head(features_of(SIZE)), head(features_of(SIZE))
    assert torch.equal(first, second) is (probability == 0 or not layers)


def test_weights_follow_from_the_seed_of_torch(name: str) -> None:
    first, again, other = build(name, seed=0), build(name, seed=0), build(name, seed=1)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two, _ in pairs)
    assert any(not torch.equal(one, three) for one, _, three in pairs)


def test_state_dict_carries_everything(head: Head, name: str) -> None:
    other = build(name, seed=1).eval()
    other.load_state_dict(head.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(head(features_of(SIZE)), other(features_of(SIZE)))


def test_bfloat16_autocast_stays_near_float32(head: Head) -> None:
    with torch.no_grad():
        exact = head(features_of(SIZE))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = head(features_of(SIZE))
    # 8 bits of mantissa, 2**-9 a rounding, a handful of layers
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


# aot_eager traces and functionalises, then runs as it is; inductor writes and compiles C++ as well.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph_that_agrees(name: str, backend: str) -> None:
    head = build(name).eval()
    features = features_of((65, 97))
    with torch.no_grad():
        expected = head(features)
        found = torch.compile(head, backend=backend, fullgraph=True)(features)
    torch._dynamo.reset()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [pytest.param(SIZE, marks=pytest.mark.slow), (65, 97)])
def test_onnx_agrees(head: Head, size: tuple[int, int], onnx_outputs: Callable) -> None:
    features = features_of(size)
    with torch.no_grad():
        expected = head(features)
    (found,) = onnx_outputs(head, (features,))
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)
