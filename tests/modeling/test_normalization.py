"""Frozen BatchNorm is BatchNorm in evaluation, for good, under the same names."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from t2sda.errors import UserError
from t2sda.modeling.backbones.timm_import import import_timm
from t2sda.modeling.normalization import (
    FrozenBatchNorm2d,
    WholeBatchNorm2d,
    set_norm,
    share_statistics,
    single_values_named,
)
from t2sda.modeling.projector import Projector


def trained_norm(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """With statistics, scale and shift as training would leave them."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return norm


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(1))


def test_frozen_equals_the_formula_in_training_too(features: Tensor) -> None:
    norm = trained_norm(nn.BatchNorm2d(4, eps=0.01))
    frozen = set_norm(norm, "frozen").train()
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = norm.weight.double() / (var + 0.01).sqrt()
    shift = norm.bias.double() - mean * scale
    expected = features.double() * scale.view(1, 4, 1, 1) + shift.view(1, 4, 1, 1)
    torch.testing.assert_close(frozen(features).double(), expected, atol=1e-6, rtol=1e-6)


def test_frozen_learns_nothing_and_passes_gradients(features: Tensor) -> None:
    frozen = set_norm(trained_norm(nn.BatchNorm2d(4)), "frozen").train()
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen(features.requires_grad_()).square().sum().backward()
    assert list(frozen.parameters()) == []
    assert features.grad is not None
    assert features.grad.any()
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_names_are_those_of_batch_norm_and_either_loads_the_other() -> None:
    norm = trained_norm(nn.BatchNorm2d(4))
    frozen = set_norm(nn.Sequential(nn.BatchNorm2d(4)), "frozen")
    names = {f"0.{name}" for name in norm.state_dict()} - {"0.num_batches_tracked"}
    assert frozen.state_dict().keys() == names

    frozen.load_state_dict(nn.Sequential(norm).state_dict(), strict=True)
    assert torch.equal(frozen[0].running_var, norm.running_var)
    back = nn.Sequential(nn.BatchNorm2d(4))
    back.load_state_dict(frozen.state_dict(), strict=True)
    assert torch.equal(back[0].weight, norm.weight)


def test_activation_and_dropout_of_a_fused_norm_stay(features: Tensor) -> None:
    layers = import_timm().layers
    norm = trained_norm(layers.BatchNormAct2d(4, act_layer=nn.ReLU6, drop_layer=nn.Dropout2d))
    frozen = set_norm(norm, "frozen")
    assert torch.equal(frozen.eval()(features), norm.eval()(features))
    assert isinstance(frozen.act, nn.ReLU6)
    assert isinstance(frozen.drop, nn.Dropout2d)


def test_every_batch_norm_of_a_tree_is_replaced_and_outputs_stay() -> None:
    torch.manual_seed(0)
    net = import_timm().create_model("tf_efficientnet_lite0").eval()
    count = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = net(image)
        assert set_norm(net, "frozen") is net
        assert torch.equal(net(image), expected)
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in net.modules()) == count == 49
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def test_batch_leaves_everything_as_it_is() -> None:
    norm = nn.BatchNorm2d(4)
    net = nn.Sequential(norm)
    assert set_norm(net, "batch")[0] is norm


def test_bfloat16_stays_bfloat16_under_autocast(features: Tensor) -> None:
    net = set_norm(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), "frozen")
    with torch.autocast("cpu", torch.bfloat16):
        assert net(features).dtype == torch.bfloat16


def test_norm_without_statistics_cannot_be_frozen() -> None:
    with pytest.raises(ValueError, match=r"MODEL\.NORM.*no statistics"):
        set_norm(nn.BatchNorm2d(4, track_running_stats=False), "frozen")


def test_frozen_affine_moves_its_statistics_and_learns_nothing(features: Tensor) -> None:
    norm = trained_norm(nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    net = set_norm(nn.Sequential(norm), "frozen_affine").train()
    found = net(features.requires_grad_())
    found.square().sum().backward()
    expected = nn.functional.batch_norm(features, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(found, expected)
    assert norm.weight.grad is None
    assert norm.bias.grad is None
    mean = features.detach().mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, 0.9 * before["running_mean"] + 0.1 * mean)


def test_frozen_affine_stays_frozen_with_statistics_of_all_ranks(features: Tensor) -> None:
    net = share_statistics(set_norm(nn.Sequential(nn.BatchNorm2d(4)), "frozen_affine"))
    assert isinstance(net[0], WholeBatchNorm2d)
    net(features.requires_grad_()).square().sum().backward()
    assert not net[0].weight.requires_grad
    assert net[0].weight.grad is None


def pooled(*layers: nn.Module) -> nn.Sequential:
    """Global average pooling in front."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers)


@pytest.mark.parametrize(
    ("module", "image", "name"),
    [
        (Projector(4, 8), torch.zeros(1, 4, 1, 1), r"0\.1 \(BatchNorm2d\)"),
        (pooled(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)), torch.zeros(1, 4, 9, 9), r"2 \(Batch"),
        (pooled(nn.Flatten(), nn.BatchNorm1d(4)), torch.zeros(1, 4, 9, 9), r"2 \(BatchNorm1d\)"),
        (pooled(nn.InstanceNorm2d(4)), torch.zeros(8, 4, 9, 9), r"1 \(InstanceNorm2d\)"),
        (pooled(nn.GroupNorm(4, 4)), torch.zeros(1, 4, 9, 9), r"1 \(GroupNorm\)"),
        (
            nn.Sequential(import_timm().layers.BatchNormAct2d(4)),
            torch.zeros(1, 4, 1, 1),
            "BatchNormA",
        ),
    ],
)
def test_a_norm_over_a_single_value_is_named(module: nn.Module, image: Tensor, name: str) -> None:
    message = rf"{name}.* single value .*images of 32x64 pixels .*DATA\.CROP_SIZE, or SOLVER\.BATCH"
    with pytest.raises(UserError, match=message), single_values_named(module, (32, 64)):
        module(image)
    with single_values_named(module, (32, 64)):
        module(torch.zeros(8, 4, 9, 9)) if not isinstance(module[-1], nn.InstanceNorm2d) else None  # type: ignore[index]


@pytest.mark.parametrize(
    "fail",
    [
        lambda: nn.BatchNorm2d(4)(torch.zeros(1, 4, 1)),  # another fault of a norm
        lambda: int("more than 1"),
        lambda: nn.Sequential(nn.Unflatten(1, (3, 3)))(torch.zeros(1, 4)),
    ],
)
def test_other_errors_are_left_alone(fail: Callable[[], object]) -> None:
    with (
        pytest.raises((ValueError, RuntimeError)) as caught,
        single_values_named(nn.Identity(), (1, 1)),
    ):
        fail()
    assert not isinstance(caught.value, UserError)
