"""Learning rates against the log of the DAFormer family, and optimizer groups."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from t2sda.config import ConfigError, load_config
from t2sda.engine.optim import (
    Owner,
    build_owner,
    build_owners,
    check_every_parameter_is_trained,
    load_optimizers_,
    student_optimizer,
)
from t2sda.errors import UserError
from t2sda.meta_arch.base import MetaArch, StudentPass
from t2sda.meta_arch.owners import LrSchedule, OptimizerSettings, ParameterGroup
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.backbones.mit import MiT
from t2sda.modeling.branch import Branch
from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.projector import Projector
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.registry import OPTIMIZERS
from t2sda.structures import Step
from tests.components import components_restored


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


class TinyBackbone(Backbone):
    """A convolution and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.LayerNorm(4)


class TinyModel(nn.Module):
    """A backbone with a layer norm and a head with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyBackbone()
        self.head = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))


def optimizer_of(cfg: CfgNode, branch: Branch) -> torch.optim.Optimizer:
    """The student's."""
    return build_owner("student", student_optimizer(cfg, branch)).optimizer


def test_groups_follow_the_daformer_family() -> None:
    branch = Branch(TinyModel(), projector=nn.Conv2d(4, 4, 1))  # type: ignore[arg-type]
    optimizer = optimizer_of(load_config(None), branch)
    names = {id(parameter): name for name, parameter in branch.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, (rate, decay) in found.items():
        in_backbone = name.startswith("model.backbone")
        assert rate == pytest.approx(6e-5 if in_backbone else 6e-4), name
        assert decay == (0.0 if name.startswith("model.backbone.norm") else 0.01), name
    assert found.keys() == {name for name, _ in branch.named_parameters()}


def test_groups_of_mit_follow_the_names_the_family_goes_by() -> None:
    """Substrings of the full name, the first hit wins: `head`, then `norm`."""
    backbone = MiT("b0")
    branch = Branch(
        SegmentationModel(backbone, DAFormerHead(backbone.feature_specs, 19, channels=8)),
        Projector(backbone.feature_specs[-1].channels, channels=8),
    )
    names = {id(parameter): name for name, parameter in branch.named_parameters()}
    for group in optimizer_of(load_config(None), branch).param_groups:
        for name in (names[id(parameter)] for parameter in group["params"]):
            in_head = name.startswith(("model.head.", "projector."))
            assert group["lr"] == pytest.approx(6e-4 if in_head else 6e-5), name
            assert group["weight_decay"] == (0.0 if not in_head and "norm" in name else 0.01), name


def test_every_norm_of_a_residual_network_is_decayed() -> None:
    cfg = load_config(None, ["MODEL.BACKBONE.NAME", "ResNetV1c", "MODEL.BACKBONE.DEPTH", "18"])
    optimizer = optimizer_of(cfg, Branch(build_segmentation_model(cfg, 19)))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    rates = sorted({group["base_lr"] for group in optimizer.param_groups})
    assert rates == pytest.approx([6e-5, 6e-4])


def test_what_no_weights_fill_learns_at_the_rate_of_the_head() -> None:
    keys = ["MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.TIMM_NAME", "test_vit"]
    cfg = load_config(None, keys)
    branch = Branch(build_segmentation_model(cfg, 19))
    names = {id(parameter): name for name, parameter in branch.named_parameters()}
    rates = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer_of(cfg, branch).param_groups
        for parameter in group["params"]
    }
    for name, (rate, decay) in rates.items():
        pretrained = name.startswith("model.backbone.net.")
        assert rate == pytest.approx(6e-5 if pretrained else 6e-4), name
        assert decay == (0.0 if pretrained and "norm" in name else 0.01), name
    assert any(name.startswith("model.backbone.pyramid.") for name in rates)


def test_frozen_parameters_are_left_out() -> None:
    branch = Branch(TinyModel())  # type: ignore[arg-type]
    branch.model.backbone.requires_grad_(False)
    count = sum(
        len(group["params"]) for group in optimizer_of(load_config(None), branch).param_groups
    )
    assert count == len(list(branch.model.head.parameters()))


def test_rates_are_set_from_the_base_rate_each_time() -> None:
    groups = [ParameterGroup([nn.Parameter(torch.ones(1))], lr=2.0)]
    owner = build_owner("student", OptimizerSettings(groups, LrSchedule(max_iter=4)))
    for iteration in (1, 3):
        owner.set_learning_rate_(iteration)
    assert owner.optimizer.param_groups[0]["lr"] == 0.5


def stepped(branch: Branch, *settings: str) -> Owner:
    """The student's owner after one step on gradients of 1."""
    owner = build_owner("student", student_optimizer(load_config(None, settings), branch))
    for parameter in branch.parameters():
        parameter.grad = torch.ones_like(parameter)
    owner.optimizer.step()
    return owner


def test_a_resumed_run_takes_moments_from_the_checkpoint_and_rates_from_the_settings() -> None:
    first, second = (Branch(TinyModel()) for _ in range(2))  # type: ignore[arg-type]
    trained = stepped(first)
    # HEAD_LR_FACTOR 1 gives head and backbone one rate: the groups must stay the same all the same.
    changed = ["SOLVER.BASE_LR", "1e-3", "SOLVER.HEAD_LR_FACTOR", "1", "SOLVER.BETAS", "[0.8, 0.9]"]
    resumed = build_owner("student", student_optimizer(load_config(None, changed), second))
    load_optimizers_([resumed], {"student": trained.optimizer.state_dict()}, 1)
    groups = resumed.optimizer.param_groups
    assert {group["base_lr"] for group in groups} == {1e-3}
    assert {group["betas"] for group in groups} == {(0.8, 0.9)}
    moment = resumed.optimizer.state[second.model.head[0].weight]["exp_avg"]
    torch.testing.assert_close(moment, torch.full_like(moment, 0.1))


def test_a_resumed_run_needs_the_owners_and_the_optimizer_of_before() -> None:
    owner = stepped(Branch(TinyModel()))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="optimizers of student, critic, this run of student"):
        load_optimizers_([owner], {"student": owner.state_dict(), "critic": {}}, 1)
    with pytest.raises(UserError, match="no optimizer, as imported weights; start .* --weights"):
        load_optimizers_([owner], {"student": {}}, 0)
    descent = stepped(Branch(TinyModel()), "SOLVER.OPTIMIZER", "sgd")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"another optimizer than AdamW; .* SOLVER\.OPTIMIZER"):
        load_optimizers_([owner], {"student": descent.optimizer.state_dict()}, 1)


def test_no_optimizer_is_loaded_when_the_moments_of_one_do_not_fit() -> None:
    first, second = (stepped(Branch(TinyModel())) for _ in range(2))  # type: ignore[arg-type]
    owners = [first, replace(second, name="critic")]
    states = {owner.name: copy.deepcopy(owner.optimizer.state_dict()) for owner in owners}
    for moments in states["student"]["state"].values():
        moments["exp_avg"].fill_(7.0)
    states["critic"]["state"][0]["exp_avg"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"optimizer of critic: .*exp_avg is \(1,\), must be"):
        load_optimizers_(owners, states, 1)
    for moments in first.optimizer.state.values():
        assert not (moments["exp_avg"] == 7.0).any()


def test_a_pass_that_had_nothing_to_learn_from_yet_is_resumed() -> None:
    idle = build_owner(
        "critic",
        OptimizerSettings([ParameterGroup([nn.Parameter(torch.zeros(2))], 0.1)], LrSchedule(9)),
    )
    empty = idle.state_dict()
    load_optimizers_([idle], {"critic": empty}, iteration=100)
    with pytest.raises(UserError, match="optimizer of student: .* is empty after 100 iterations"):
        load_optimizers_([replace(idle, name="student")], {"student": empty}, iteration=100)


def test_only_a_parameter_without_a_gradient_yet_has_no_moments() -> None:
    values = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    names = {id(value): name for value, name in zip(values, "abc", strict=True)}
    settings = OptimizerSettings([ParameterGroup(values, 0.1)], LrSchedule(9))
    owner = build_owner("student", settings, names)
    for value in values[:2]:
        value.grad = torch.ones(2)
    owner.optimizer.step()
    state = owner.state_dict()
    assert list(state["state"]) == [0, 1, 2]
    assert state["state"][2] == {}
    load_optimizers_([build_owner("student", settings, names)], {"student": state}, 1)
    for number, name in enumerate("abc"):
        lost = {**state, "state": {n: own for n, own in state["state"].items() if n != number}}
        with pytest.raises(UserError, match=f"{name}: its state is missing; use an older one"):
            load_optimizers_([build_owner("student", settings, names)], {"student": lost}, 1)


def test_sgd_descends_with_momentum_and_decay() -> None:
    branch = Branch(TinyModel())  # type: ignore[arg-type]
    bias = branch.model.head[0].bias
    before = bias.detach().clone()
    owner = stepped(
        branch,
        *("SOLVER.OPTIMIZER", "sgd", "SOLVER.MOMENTUM", "0.5", "SOLVER.WEIGHT_DECAY", "0.1"),
        *("SOLVER.BASE_LR", "0.01"),
    )
    first = before - 0.1 * (1 + 0.1 * before)
    torch.testing.assert_close(bias.detach(), first)
    owner.optimizer.step()
    # The velocity keeps half of the first gradient.
    second = first - 0.1 * (1 + 0.1 * first + 0.5 * (1 + 0.1 * before))
    torch.testing.assert_close(bias.detach(), second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["SOLVER.MOMENTUM", "0.5"], "MOMENTUM .*no effect.*OPTIMIZER is sgd"),
        (
            ["SOLVER.OPTIMIZER", "sgd", "SOLVER.BETAS", "[0.5, 0.9]"],
            "BETAS .*no effect.*OPTIMIZER is adamw",
        ),
    ],
)
def test_settings_of_the_other_optimizer_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


OWN_OPTIMIZERS = ("Adafactor", "Adagrad", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop")


@pytest.mark.parametrize("kind", OWN_OPTIMIZERS)
def test_moments_of_a_registered_optimizer_are_resumed(kind: str) -> None:
    with components_restored():
        OPTIMIZERS.add("own", lambda groups, cfg: getattr(torch.optim, kind)(groups))
        first, second = (Branch(TinyModel()) for _ in range(2))  # type: ignore[arg-type]
        owner = stepped(first, "SOLVER.OPTIMIZER", "own")
        settings = student_optimizer(load_config(None, ["SOLVER.OPTIMIZER", "own"]), second)
        resumed = build_owner("student", settings)
    load_optimizers_([resumed], {"student": copy.deepcopy(owner.state_dict())}, 1)
    second.load_state_dict(first.state_dict())
    for one in (owner, resumed):
        for parameter in one.parameters:
            parameter.grad = torch.ones_like(parameter)
        one.optimizer.step()
    for before, after in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(before, after)
    state = copy.deepcopy(owner.state_dict())
    del state["state"][0]["step"]
    with pytest.raises(UserError, match="a damaged or edited checkpoint, optimizer of student"):
        load_optimizers_([resumed], {"student": state}, 2)
    descent = stepped(Branch(TinyModel()), "SOLVER.OPTIMIZER", "sgd")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"another optimizer than {kind}; "):
        load_optimizers_([resumed], {"student": descent.state_dict()}, 1)


def test_what_is_registered_must_make_an_optimizer() -> None:
    settings = OptimizerSettings([], LrSchedule(9), kind=lambda groups: groups)  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="the optimizer of student is a list; .*must return a"):
        build_owner("student", settings)


class Critic(StudentPass):
    """A pass with two layers, of which it trains what the test says."""

    def __init__(self, trained: Callable[[Critic], list[nn.Parameter]]) -> None:
        super().__init__()
        self.first = nn.Linear(1, 1)
        self.second = nn.Linear(1, 1)
        self.trained = trained

    def optimizer(self) -> OptimizerSettings:
        return OptimizerSettings([ParameterGroup(self.trained(self), lr=0.1)], LrSchedule(10))

    def forward(self, student: Branch, step: Step) -> dict[str, Tensor]:
        raise NotImplementedError


def with_critic(trained: Callable[[Critic], list[nn.Parameter]]) -> MetaArch:
    return MetaArch(Branch(TinyModel()), {"critic": Critic(trained)})  # type: ignore[arg-type]


def test_student_and_passes_are_owners_in_order() -> None:
    owners = build_owners(load_config(None), with_critic(lambda critic: list(critic.parameters())))
    assert [owner.name for owner in owners] == ["student", "critic"]


def check(meta_arch: MetaArch) -> None:
    check_every_parameter_is_trained(meta_arch, build_owners(load_config(None), meta_arch))


def test_a_trainable_parameter_that_nobody_trains_is_named() -> None:
    meta_arch = with_critic(lambda critic: list(critic.first.parameters()))
    message = r"no optimizer trains passes\.critic\.second\.weight, passes\.critic\.second\.bias"
    with pytest.raises(UserError, match=message):
        check(meta_arch)
    meta_arch.passes["critic"].second.requires_grad_(False)  # type: ignore[operator, union-attr]
    check(meta_arch)


def test_a_parameter_has_one_owner() -> None:
    meta_arch = with_critic(lambda critic: list(critic.parameters()))
    critic = meta_arch.passes["critic"]
    critic.borrowed = meta_arch.student.model.head  # a parameter of the student
    with pytest.raises(UserError, match=r"more than one optimizer trains student\.model\.head\.0"):
        check(meta_arch)
