"""Loading weights without surprises: every tensor is accounted for, or it is an error."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from t2sda.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a weights file."""

    loaded: tuple[str, ...]
    dropped: tuple[str, ...]
    """Tensors of parts that this network is known not to have, such as a classifier."""


def load_strict(
    module: nn.Module, state: Mapping[str, Tensor], source: str, droppable: Collection[str] = ()
) -> LoadReport:
    """Copy every tensor of `state` into `module`.

    `num_batches_tracked` may be missing: it counts steps, changes no output, and neither old
    checkpoints nor frozen BatchNorms have it.

    Args:
        module: receives the tensors; untouched if there is an error.
        state: tensors by the module's own names.
        source: where they come from, for messages.
        droppable: names that may be left over, because the module leaves these parts out.

    Raises:
        UserError: naming how many tensors are missing, left over, of another shape or not finite,
            and the first of each.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not is_counter(name)]
    unused = [name for name in state if name not in own and not is_counter(name)]
    dropped = [name for name in unused if name in droppable]
    loaded = [name for name in own if name in state]
    problems = [
        _describe("missing in the file", missing),
        _describe("unknown to the network", [name for name in unused if name not in droppable]),
        _describe("of another shape", _shape_differences(own, state)),
        _describe("not finite", [name for name in loaded if not _is_finite(state[name])]),
    ]
    if any(problems):
        raise UserError(
            f"weights '{source}' do not fit {type(module).__name__} ({len(own)} tensors): "
            + "; ".join(filter(None, problems))
            + ". Are they of another network or size, or damaged?"
        )
    module.load_state_dict({name: state[name] for name in loaded}, strict=False)
    logger.info("%s: %d tensors loaded, %d not needed", source, len(loaded), len(dropped))
    return LoadReport(tuple(loaded), tuple(dropped))


def is_counter(name: str) -> bool:
    """Whether a tensor counts the steps of a BatchNorm."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def _shape_differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _describe(problem: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{len(names)} {problem} (first {', '.join(names[:3])})"
