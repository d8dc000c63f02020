"""What a checkpoint holds fits the run, tensor by tensor, or it is refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2sda.engine.checkpoint_validation import (
    fresh_moments,
    optimizer_problems,
    structure_problems,
    tensor_problems,
)
from t2sda.engine.optim import Owner, load_optimizers_
from t2sda.meta_arch.owners import LrSchedule

STEPS = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    biases = [(name, p) for name, p in module.named_parameters() if p.ndim == 1]
    weights = [(name, p) for name, p in module.named_parameters() if p.ndim > 1]
    return torch.optim.AdamW(
        [{"params": weights, "base_lr": 0.1}, {"params": biases, "base_lr": 0.2}], fused=True
    )


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), momentum=0.9)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> None:
    for seed in range(steps):
        torch.manual_seed(seed)
        module(torch.rand(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def trained(build: Callable[[nn.Module], torch.optim.Optimizer]) -> dict[str, Any]:
    module = network()
    optimizer = build(module)
    train(module, optimizer)
    return copy.deepcopy(optimizer.state_dict())


@pytest.mark.parametrize("build", [adamw, sgd])
def test_the_state_of_the_same_run_fits(
    build: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    assert optimizer_problems(build(network()), trained(build), STEPS) == []


def test_plain_sgd_keeps_nothing_and_lacks_nothing() -> None:
    optimizer = torch.optim.SGD(network().parameters())
    assert optimizer_problems(optimizer, optimizer.state_dict(), STEPS) == []


def damaged_moment(name: str, change: Callable[[Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def damage(state: dict[str, Any]) -> None:
        own = state["state"][1]
        own[name] = change(own[name])

    return damage


def filled(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged_moment("exp_avg", lambda t: t.reshape(-1)[:1]), "exp_avg is (1,), must be"),
        (damaged_moment("exp_avg_sq", lambda t: t.half()), "is float16, must be float32"),
        (damaged_moment("exp_avg", lambda t: t.to_sparse()), "float32 sparse_coo, must be"),
        (damaged_moment("exp_avg", lambda t: t.to("meta")), "float32 without content"),
        (damaged_moment("exp_avg", lambda t: t.tolist()), "exp_avg is no tensor"),
        (damaged_moment("exp_avg", filled(math.nan)), "exp_avg is not finite"),
        (damaged_moment("exp_avg_sq", filled(-1.0)), "exp_avg_sq is negative"),
        (damaged_moment("step", filled(math.inf)), "step is not finite"),
        (damaged_moment("step", filled(STEPS + 1.0)), "step is 4 after 3 iterations"),
        (damaged_moment("step", filled(0.0)), "step is 0 after 3"),
        (damaged_moment("step", filled(1.5)), "step is 1.5 after 3"),
        (lambda state: state["state"][1].pop("exp_avg"), "needs step, exp_avg, exp_avg_sq"),
        (lambda state: state["state"].clear(), "is empty after 3 iterations"),
        (lambda state: state["state"].update({99: {}}), "parameter 99, which is in no group"),
        (lambda state: state["state"].pop(1), "2.weight: its state is missing"),
        (lambda state: state["state"].pop(0), "0.weight: its state is missing"),
        (lambda state: state["state"].pop(5), "2.bias: its state is missing"),
        (
            lambda state: state["param_groups"][0]["param_names"].reverse(),
            "is of other parameters, such as 2.weight in place of 0.weight",
        ),
        (lambda state: state["param_groups"].pop(), "groups of [2] parameters, this run of [2, 4]"),
        (lambda state: state["param_groups"][0].update(params=[1, 1]), "one parameter twice"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    state = trained(adamw)
    damage(state)
    (problem,) = optimizer_problems(adamw(network()), state, STEPS)
    assert message in problem


def test_float16_may_have_skipped_its_first_steps() -> None:
    optimizer = adamw(network())
    empty = {**optimizer.state_dict(), "state": {number: {} for number in range(6)}}
    assert optimizer_problems(optimizer, empty, iteration=2, num_skipped=64) == []
    assert optimizer_problems(optimizer, empty, iteration=65, num_skipped=64) != []


def test_moments_that_share_memory_get_their_own_and_the_layout_of_their_parameter() -> None:
    module = network().to(memory_format=torch.channels_last)
    optimizer = adamw(module)
    state = trained(adamw)
    shared = torch.zeros(1).expand(4, 3, 3, 3)
    state["state"][0]["exp_avg"] = shared
    moments = fresh_moments(optimizer, state)
    assert moments[0]["exp_avg"].stride() == module[0].weight.stride()
    assert moments[0]["exp_avg"].untyped_storage().nbytes() == 4 * shared.numel()


def test_options_of_the_file_do_not_replace_those_of_the_configuration() -> None:
    state = trained(adamw)
    for group in state["param_groups"]:
        group.update(maximize=True, eps=1.0, betas=(0.0, 0.0), weight_decay=9.0)
    optimizer = adamw(network())
    before = copy.deepcopy([{**group, "params": 0} for group in optimizer.param_groups])
    schedule = LrSchedule(max_iter=9, warmup_iters=0, warmup_ratio=1.0, power=1.0)
    load_optimizers_([Owner("student", optimizer, schedule)], {"student": state}, STEPS)
    assert [{**group, "params": 0} for group in optimizer.param_groups] == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:1], "1 tensors of another shape: 0.weight (1, 3, 3, 3) for (4, 3, 3, 3)"),
        (lambda t: t.double(), "1 tensors of another type: 0.weight float64 for float32"),
        (lambda t: t.to_sparse(), "0.weight float32 sparse_coo for float32"),
        (lambda t: t.to("meta"), "0.weight float32 without content for float32"),
        (filled(math.inf), "1 tensors not finite: 0.weight"),
    ],
)
def test_a_tensor_that_does_not_fit_its_place_is_named(
    change: Callable[[Tensor], Tensor], message: str
) -> None:
    state = network().state_dict()
    state["0.weight"] = change(state["0.weight"])
    (problem,) = tensor_problems(network().state_dict(), state)
    assert message in problem


@pytest.mark.parametrize(
    ("name", "value"), [("bn.running_var", -1e-6), ("pixel_std", 0.0), ("model.pixel_std", -1.0)]
)
def test_values_that_nothing_can_be_divided_by_are_named(name: str, value: float) -> None:
    own = {name: torch.ones(3)}
    assert tensor_problems(own, {name: torch.tensor([1.0, value, 1.0])}) == [
        f"1 tensors out of range: {name}"
    ]
    assert tensor_problems(own, {name: torch.tensor([1.0, 1e-9, 1.0])}) == []
    (problem,) = tensor_problems(own, {name: torch.ones(3, device="meta")})
    assert "of another type" in problem


def test_a_memory_that_begins_with_nan_may_still_hold_some() -> None:
    own = {"prototypes": torch.full((2, 3), math.nan)}
    assert tensor_problems(own, {"prototypes": torch.tensor([[1.0] * 3, [math.nan] * 3])}) == []


CONTENT: dict[str, Any] = {
    "iteration": 3,
    "meta_arch": {"weight": torch.zeros(1)},
    "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"params": [0], "lr": 0.1}]},
    "pass_optimizers": {"critic": {"state": {}, "param_groups": []}},
    "hooks": {"Running": {"mean": torch.zeros(2)}},
    "scaler": {},
    "data": {"source": [{"name": "own", "images": 2, "files_sha256": "0af"}]},
    "config": {"SEED": 0},
    "taxonomy": {
        "name": "two",
        "class_names": ["a", "b"],
        "palette": [[0, 0, 0], [1, 2, 255]],
        "subsets": {"one": [1]},
    },
    "versions": {"torch": "2"},
}


def test_a_whole_structure_has_no_problem() -> None:
    assert structure_problems(CONTENT) == []
    scaler = torch.amp.GradScaler("cpu").state_dict()
    assert structure_problems({**CONTENT, "scaler": scaler}) == []


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("iteration", value) for value in (-1, True, 2.0, "3", None, 2**63, torch.tensor(3))),
        *(("meta_arch", value) for value in (None, [], {1: torch.zeros(1)}, {"a": 1.0})),
        *(
            pair
            for value in ({"state": {}}, {"state": [], "param_groups": []}, [], None)
            for pair in (("optimizer", value), ("pass_optimizers", {"a": value}))
        ),
        *(("pass_optimizers", value) for value in (None, [], {1: {}}, {"a": {}})),
        *(("hooks", value) for value in (None, {"a": 1}, {"a": {"b": 1.0}}, {1: {}})),
        ("optimizer", {"state": {"0": {}}, "param_groups": []}),
        ("optimizer", {"state": {}, "param_groups": [{"lr": 0.1}]}),
        ("optimizer", {"state": {}, "param_groups": [{"params": ["a"]}]}),
        ("optimizer", {"state": {}, "param_groups": [{"params": [0], "param_names": [0]}]}),
        ("optimizer", {"state": {}, "param_groups": [{"params": [0], "param_names": []}]}),
        *(("data", value) for value in (None, {"source": {}}, {"source": [{"name": "own"}]})),
        *(("scaler", value) for value in (None, {"scale": 1.0}, {"scale": math.nan})),
        ("scaler", {**torch.amp.GradScaler("cpu").state_dict(), "scale": 0.0}),
        *(("config", value) for value in (None, [1], {1: 2})),
        *(("versions", value) for value in (None, {"torch": 2})),
        *(("taxonomy", value) for value in (None, {}, [["a", "b"]])),
        ("taxonomy", {**CONTENT["taxonomy"], "class_names": ["a", 2]}),
        ("taxonomy", {**CONTENT["taxonomy"], "palette": [[0, 0, 0], [0, 0, 999]]}),
        ("taxonomy", {**CONTENT["taxonomy"], "palette": [[0, 0, 0], [0, 0]]}),
        ("taxonomy", {**CONTENT["taxonomy"], "subsets": {"one": [2]}}),
    ],
)
def test_a_mistyped_part_is_named(part: str, value: Any) -> None:
    (problem,) = structure_problems({**CONTENT, part: value})
    assert problem.startswith(f"`{part}` must be")


@pytest.mark.parametrize("part", CONTENT)
def test_a_missing_part_is_named(part: str) -> None:
    content = {name: value for name, value in CONTENT.items() if name != part}
    assert structure_problems(content) == [f"`{part}` is missing"]
