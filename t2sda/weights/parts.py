"""Tensors of a file put under our names: renamed, cut, joined, and each accounted for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from t2sda.errors import UserError


@dataclass(frozen=True)
class Part:
    """What a tensor of a file is to us: one of our tensors, or some rows of it."""

    target: str
    tensor: Tensor
    index: int = 0
    """Among the parts of the target, which are joined along the first axis."""
    count: int = 1


Place = Callable[[str, Tensor], list[Part]]
"""Name and tensor of a file -> the parts that it is; a name that no rule knows stays as it is."""


@dataclass(frozen=True)
class Assembly:
    """A file's tensors under our names."""

    tensors: dict[str, Tensor]
    sources: dict[str, list[str]]
    """Our name -> the names in the file that it was made of, in order."""
    incomplete: dict[str, list[str]]
    """Our name -> the names in the file that make a part of it only."""


def assemble(state: Mapping[str, Tensor], place: Place) -> Assembly:
    """Rename, cut and join.

    Raises:
        UserError: if two tensors of the file are the same one of ours, or cannot be joined.
    """
    found: dict[str, dict[int, tuple[str, Part]]] = defaultdict(dict)
    for name, tensor in state.items():
        for part in place(name, tensor):
            if part.index in found[part.target]:
                first, _ = found[part.target][part.index]
                raise UserError(f"{first} and {name} are the same tensor, {part.target}")
            found[part.target][part.index] = (name, part)
    result = Assembly({}, {}, {})
    for target, members in found.items():
        ordered = [members[index] for index in sorted(members)]
        sources = list(dict.fromkeys(name for name, _ in ordered))
        pieces = [part.tensor for _, part in ordered]
        if len(pieces) < ordered[0][1].count:
            result.incomplete[target] = sources
            continue
        result.tensors[target] = _joined(pieces, sources)
        result.sources[target] = sources
    return result


def _joined(pieces: list[Tensor], sources: list[str]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0]
    if len({piece.shape[1:] for piece in pieces}) > 1:
        shapes = " and ".join(str(tuple(piece.shape)) for piece in pieces)
        raise UserError(f"{' and '.join(sources)} cannot be joined: they are {shapes}")
    return torch.cat(pieces)
