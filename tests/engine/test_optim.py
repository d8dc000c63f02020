"""Learning rates against the log of the DAFormer family, and optimizer groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from t2sda.config import load_config
from t2sda.engine.optim import LrSchedule, build_optimizer, load_optimizer_, set_learning_rate_
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.branch import Branch
from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.projector import Projector
from t2sda.modeling.segmentor import SegmentationModel


def schedule() -> LrSchedule:
    return LrSchedule(max_iter=40000, warmup_iters=1500, warmup_ratio=1e-6, power=1.0)


@pytest.mark.parametrize(("iteration", "rate"), [(49, 1.958e-6), (99, 3.950e-6)])
def test_warm_up_multiplies_the_decayed_rate(iteration: int, rate: float) -> None:
    # The rates that DAFormer's published log shows at its 50th and 100th iteration.
    assert 6e-5 * schedule().factor(iteration) == pytest.approx(rate, rel=5e-4)


def test_decay_is_linear_to_zero() -> None:
    assert schedule().factor(20000) == pytest.approx(0.5)
    assert schedule().factor(39999) == pytest.approx(1 / 40000)


def test_a_run_without_warm_up_begins_at_the_full_rate() -> None:
    assert LrSchedule(10, warmup_iters=0, warmup_ratio=1e-6, power=1.0).factor(0) == 1.0


class TinyModel(nn.Module):
    """A backbone with a layer norm and a head with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4))
        self.head = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))


def test_groups_follow_the_daformer_family() -> None:
    branch = Branch(TinyModel(), projector=nn.Conv2d(4, 4, 1))  # type: ignore[arg-type]
    optimizer = build_optimizer(load_config(None), branch)
    names = {id(parameter): name for name, parameter in branch.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, (rate, decay) in found.items():
        in_backbone = name.startswith("model.backbone")
        assert rate == pytest.approx(6e-5 if in_backbone else 6e-4), name
        assert decay == (0.0 if name.startswith("model.backbone.1") else 0.01), name
    assert found.keys() == {name for name, _ in branch.named_parameters()}


def test_groups_of_mit_follow_the_names_the_family_goes_by() -> None:
    """Substrings of the full name, the first hit wins: `head`, then `norm`."""
    backbone = MiT("b0")
    branch = Branch(
        SegmentationModel(backbone, DAFormerHead(backbone.feature_specs, 19, channels=8)),
        Projector(backbone.feature_specs[-1].channels, channels=8),
    )
    names = {id(parameter): name for name, parameter in branch.named_parameters()}
    for group in build_optimizer(load_config(None), branch).param_groups:
        for name in (names[id(parameter)] for parameter in group["params"]):
            in_head = name.startswith(("model.head.", "projector."))
            assert group["lr"] == pytest.approx(6e-4 if in_head else 6e-5), name
            assert group["weight_decay"] == (0.0 if not in_head and "norm" in name else 0.01), name


def test_frozen_parameters_are_left_out() -> None:
    branch = Branch(TinyModel())  # type: ignore[arg-type]
    branch.model.backbone.requires_grad_(False)
    count = sum(
        len(group["params"]) for group in build_optimizer(load_config(None), branch).param_groups
    )
    assert count == len(list(branch.model.head.parameters()))


def test_rates_are_set_from_the_base_rate_each_time() -> None:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "base_lr": 2.0}], lr=2.0)
    for factor in (0.5, 0.25):
        set_learning_rate_(optimizer, factor)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_resumed_run_takes_moments_from_the_checkpoint_and_rates_from_the_settings() -> None:
    first, second = (Branch(TinyModel()) for _ in range(2))  # type: ignore[arg-type]
    trained = build_optimizer(load_config(None), first)
    for parameter in first.parameters():
        parameter.grad = torch.ones_like(parameter)
    trained.step()
    # HEAD_LR_FACTOR 1 gives head and backbone one rate: the groups must stay the same all the same.
    changed = ["SOLVER.BASE_LR", "1e-3", "SOLVER.HEAD_LR_FACTOR", "1", "SOLVER.BETAS", "[0.8, 0.9]"]
    resumed = build_optimizer(load_config(None, changed), second)
    load_optimizer_(resumed, trained.state_dict())
    assert {group["base_lr"] for group in resumed.param_groups} == {1e-3}
    assert {group["betas"] for group in resumed.param_groups} == {(0.8, 0.9)}
    moment = resumed.state[second.model.head[0].weight]["exp_avg"]
    torch.testing.assert_close(moment, torch.full_like(moment, 0.1))
