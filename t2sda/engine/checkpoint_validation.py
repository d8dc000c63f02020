"""What a checkpoint must hold: its structure, every tensor of it, the state of its optimizers.

A file's checksums find damage; these rules find what is whole but does not fit the run. Each
function says what is wrong, in words that complete "a damaged or edited checkpoint".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from t2sda.meta_arch.owners import MakeOptimizer

Rule = Callable[[Any], bool]

SKIPPED_STEPS = 64
"""float16 skips steps until its loss scale fits: so many at most, from 2^16 down to nothing."""
_SHOWN = 3
_SQUARES = ("exp_avg_sq", "max_exp_avg_sq")


def structure_problems(content: Mapping[Any, Any]) -> list[str]:
    """Parts that are missing or of another kind than they must be."""
    return [
        f"`{name}` is missing" if name not in content else f"`{name}` must be {words}"
        for name, (rule, words) in PARTS.items()
        if name not in content or not rule(content[name])
    ]


def tensor_problems(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Why the tensors of `state` cannot take the place of `own`, those of the live module.

    A tensor may hold NaN or infinity only where the module's own does before anything is loaded,
    as a memory that marks what it has not seen yet.
    """
    both = [name for name in own if name in state]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in both
        if state[name].shape != own[name].shape
    ]
    other_kind = [name for name in both if not _same_kind(own[name], state[name])]
    kinds = [f"{name} {_kind(state[name])} for {_kind(own[name])}" for name in other_kind]
    same_kind = [name for name in both if name not in other_kind]
    infinite = [name for name in same_kind if not is_finite(state[name]) and is_finite(own[name])]
    found = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": shapes,
        "of another type": kinds,
        "not finite": infinite,
        "out of range": [name for name in same_kind if not in_range(name, state[name])],
    }
    return [_counted(what, names) for what, names in found.items() if names]


def optimizer_problems(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    iteration: int,
    num_skipped: int = 0,
    make: MakeOptimizer | None = None,
) -> list[str]:
    """Why `state` cannot be that of the live `optimizer` after `iteration` steps.

    Args:
        optimizer: as built for the run, before its first step.
        state: what it was; a parameter that had no gradient yet has an empty state.
        iteration: steps done.
        num_skipped: how many of them the optimizer may have skipped.
        make: what makes an optimizer of its kind; None: its class.
    """
    groups = state["param_groups"]
    sizes = [len(group["params"]) for group in groups]
    own_sizes = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != own_sizes:
        return [f"its optimizer has groups of {sizes} parameters, this run of {own_sizes}"]
    known = {number for group in groups for number in group["params"]}
    if len(known) != sum(sizes):
        return ["its optimizer has one parameter twice"]
    if unknown := sorted(set(state["state"]) - known):
        return [f"its optimizer has a state for parameter {unknown[0]}, which is in no group"]
    kept = _states_after_a_step(optimizer, make)
    if (
        any(any(states) for states in kept)
        and not any(state["state"].values())
        and iteration > num_skipped
    ):
        return [f"the state of its optimizer is empty after {iteration} iterations"]
    problems = []
    for group, live, states in zip(groups, optimizer.param_groups, kept, strict=True):
        names = live.get("param_names", [f"parameter {number}" for number in group["params"]])
        if group.get("param_names", names) != names:
            return [f"its optimizer is of other parameters, {_first_other(group, names)}"]
        for number, name, expected in zip(group["params"], names, states, strict=True):
            found = _moment_problem(state["state"].get(number), expected, iteration)
            problems += [f"{name}: {found}"] if found else []
    return [_counted("unusable in its optimizer", problems)] if problems else []


def is_of_another_kind(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], make: MakeOptimizer | None = None
) -> bool:
    """Whether `state` keeps, of all its parameters, other things than `optimizer` would."""
    found = {frozenset(own) for own in state["state"].values() if own}
    kept = _states_after_a_step(optimizer, make)
    return bool(found) and not found & {frozenset(own) for states in kept for own in states}


def fresh_moments(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """The states of `state` by the numbers of `optimizer`, each tensor in memory of its own.

    What was read may share or overlap memory, which an in-place update would spoil. A moment is
    laid out as its parameter.
    """
    saved = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        own: {name: _own_copy(value, parameter) for name, value in state["state"][number].items()}
        for own, (number, parameter) in enumerate(zip(saved, parameters, strict=True))
        if state["state"].get(number)
    }


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; integers always are finite."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def in_range(name: str, tensor: Tensor) -> bool:
    """Whether the values may be what the name says: a variance is not negative, a deviation not 0.

    A network of others would give NaN, or labels that mean nothing.
    """
    kind = name.rpartition(".")[2]
    if kind == "running_var":
        return not bool((tensor < 0).any())
    return kind != "pixel_std" or not bool((tensor <= 0).any())


def _own_copy(value: Any, parameter: nn.Parameter) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _states_after_a_step(
    optimizer: torch.optim.Optimizer, make: MakeOptimizer | None
) -> list[list[dict[str, Any]]]:
    """What this kind of optimizer keeps of every parameter by group, tensors without content.

    It is learned from a step on a parameter of the same shape, as some keep rows and columns.
    """
    kept = []
    for group in optimizer.param_groups:
        options = {name: group[name] for name in optimizer.defaults if name in group}
        by_shape: dict[Any, dict[str, Any]] = {}
        for own in group["params"]:
            key = (own.shape, own.dtype, own.device)
            if key not in by_shape:
                by_shape[key] = _state_after_a_step(make or type(optimizer), options, own)
        kept.append([by_shape[own.shape, own.dtype, own.device] for own in group["params"]])
    return kept


def _state_after_a_step(
    make: Callable[..., torch.optim.Optimizer], options: Mapping[str, Any], like: nn.Parameter
) -> dict[str, Any]:
    probe = nn.Parameter(torch.zeros_like(like))
    probe.grad = torch.zeros_like(probe)
    other = make([{**options, "params": [probe]}])
    other.step()
    state = other.state[probe]
    return {
        name: value.to("meta") if isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def _first_other(group: Mapping[str, Any], names: list[str]) -> str:
    theirs, ours = next(
        pair for pair in zip(group["param_names"], names, strict=True) if pair[0] != pair[1]
    )
    return f"such as {theirs} in place of {ours}"


def _moment_problem(
    own: Mapping[str, Any] | None, expected: Mapping[str, Any], iteration: int
) -> str | None:
    if own is None:
        return "its state is missing" if expected else None
    if not own:
        return None  # it had no gradient yet
    if own.keys() != expected.keys():
        return f"has {', '.join(own) or 'nothing'}, needs {', '.join(expected)}"
    for name, like in expected.items():
        value = own[name]
        if not isinstance(like, Tensor):
            if type(value) is not type(like):
                return f"{name} is a {type(value).__name__}"
            continue
        if not isinstance(value, Tensor):
            return f"{name} is no tensor"
        if value.shape != like.shape:
            return f"{name} is {tuple(value.shape)}, must be {tuple(like.shape)}"
        if not _same_kind(like, value):
            return f"{name} is {_kind(value)}, must be {_kind(like)}"
        if not is_finite(value):
            return f"{name} is not finite"
        if name in _SQUARES and bool((value < 0).any()):
            return f"{name} is negative"
        if name == "step" and not (0 < float(value) <= iteration and float(value).is_integer()):
            return f"step is {float(value):g} after {iteration} iterations"
    return None


def _same_kind(own: Tensor, other: Tensor) -> bool:
    """Of one dtype, and other is plain memory: not sparse, not quantized, not without content."""
    is_plain = other.layout == torch.strided and other.device.type != "meta"
    return own.dtype == other.dtype and is_plain and not other.is_quantized


def _kind(tensor: Tensor) -> str:
    words = [str(tensor.dtype).removeprefix("torch.")]
    if tensor.layout != torch.strided:
        words.append(str(tensor.layout).removeprefix("torch."))
    if tensor.device.type == "meta":
        words.append("without content")
    return " ".join(words)


def _counted(what: str, names: list[str]) -> str:
    more = " …" if len(names) > _SHOWN else ""
    return f"{len(names)} tensors {what}: {', '.join(names[:_SHOWN])}{more}"


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_mapping(key: Rule, item: Rule) -> Rule:
    return lambda value: (
        isinstance(value, Mapping) and all(map(key, value)) and all(map(item, value.values()))
    )


def _is_list(item: Rule) -> Rule:
    return lambda value: isinstance(value, (list, tuple)) and all(map(item, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _anything(value: Any) -> bool:
    return True


def _is_optimizer_state(value: Any) -> bool:
    has_parts = isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys()
    return (
        has_parts
        and _is_mapping(_is_count, _is_mapping(_is_text, _anything))(value["state"])
        and _is_list(_is_group)(value["param_groups"])
    )


def _is_group(value: Any) -> bool:
    if not _is_mapping(_is_text, _anything)(value) or not _is_list(_is_count)(value.get("params")):
        return False
    names = value.get("param_names", [""] * len(value["params"]))
    return _is_list(_is_text)(names) and len(names) == len(value["params"])


def _is_scaler_state(value: Any) -> bool:
    if not _is_mapping(_is_text, _is_number)(value):
        return False
    own = torch.amp.GradScaler("cpu").state_dict()
    return not value or (
        value.keys() == own.keys()
        and value["scale"] > 0
        and value["growth_factor"] > 1
        and 0 < value["backoff_factor"] < 1
    )


def _is_taxonomy(value: Any) -> bool:
    """The names, colors and subsets of the classes; whether they fit each other is Taxonomy's."""
    rules: dict[str, Rule] = {
        "name": _is_text,
        "class_names": _is_list(_is_text),
        "palette": _is_list(_is_color),
        "subsets": _is_mapping(_is_text, _is_list(_is_count)),
    }
    if not isinstance(value, Mapping) or value.keys() != rules.keys():
        return False
    num_classes = len(value["class_names"]) if rules["class_names"](value["class_names"]) else 0
    return all(rule(value[name]) for name, rule in rules.items()) and all(
        index < num_classes for ids in value["subsets"].values() for index in ids
    )


def _is_color(value: Any) -> bool:
    return _is_list(_is_count)(value) and len(value) == 3 and max(value) <= 255


def _is_fingerprint(value: Any) -> bool:
    rules = {"name": _is_text, "images": _is_count, "files_sha256": _is_text}
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and item.keys() == rules.keys()
        and all(rule(item[key]) for key, rule in rules.items())
        for item in value
    )


PARTS: dict[str, tuple[Rule, str]] = {
    "iteration": (_is_count, "a whole number, 0 or more"),
    "meta_arch": (_is_mapping(_is_text, _is_tensor), "tensors by name"),
    "optimizer": (
        lambda value: value == {} or _is_optimizer_state(value),
        "the state dict of an optimizer, or empty",
    ),
    "pass_optimizers": (
        _is_mapping(_is_text, _is_optimizer_state),
        "state dicts of optimizers by pass",
    ),
    "hooks": (_is_mapping(_is_text, _is_mapping(_is_text, _is_tensor)), "tensors by hook and name"),
    "scaler": (_is_scaler_state, "the state dict of a loss scaler, or empty"),
    "config": (_is_mapping(_is_text, _anything), "settings by name"),
    "taxonomy": (_is_taxonomy, "the name, class names, palette and subsets of a label set"),
    "data": (_is_mapping(_is_text, _is_fingerprint), "names, counts and digests of datasets"),
    "versions": (_is_mapping(_is_text, _is_text), "versions by name"),
}
"""What there is beside the mark of the format: a rule, and the same in words."""
