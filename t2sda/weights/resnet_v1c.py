"""Names that mmsegmentation uses in its ResNet-v1c, translated to timm's."""

from __future__ import annotations

from collections.abc import Iterable

from t2sda.errors import UserError

_BLOCKS_OF_STAGE_3 = {2: 18, 6: 50, 23: 101}


def timm_name(name: str) -> str:
    """The stem is `stem.N` in mmsegmentation; in timm `conv1.N`, its last BatchNorm `bn1`."""
    if name.startswith("stem.7."):
        return name.replace("stem.7.", "bn1.", 1)
    return name.replace("stem.", "conv1.", 1) if name.startswith("stem.") else name


def resnet_depth(names: Iterable[str]) -> int:
    """Layers of the ResNet that has tensors of these names.

    Raises:
        UserError: if it is none of 18, 50 and 101.
    """
    blocks = len({name.split(".")[1] for name in names if name.startswith("layer3.")})
    if blocks not in _BLOCKS_OF_STAGE_3:
        raise UserError(
            f"a ResNet with {blocks} blocks in its third stage; known are those of "
            f"{', '.join(map(str, _BLOCKS_OF_STAGE_3.values()))} layers"
        )
    return _BLOCKS_OF_STAGE_3[blocks]
