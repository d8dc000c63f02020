"""Adapters in a state dict: recognised by name, and added to their weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

DOWN = "adapter_down"
UP = "adapter_up"


def is_of_adapter(name: str) -> bool:
    """Whether a tensor of this name is half of an adapter."""
    return name.rpartition(".")[2] in (DOWN, UP)


def folded_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network without adapters: every W is W + UD; see `AdaptedLinear`.

    Halves that do not fit each other stay, for the strict loading behind it to name them.
    """
    folded = dict(state)
    for up in [name for name in state if name.rpartition(".")[2] == UP]:
        layer = up.removesuffix(UP)
        try:
            weight = torch.addmm(state[f"{layer}weight"], state[up], state[f"{layer}{DOWN}"])
        except (KeyError, RuntimeError):
            continue
        folded[f"{layer}weight"] = weight
        del folded[up], folded[f"{layer}{DOWN}"]
    return folded
