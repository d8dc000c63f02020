"""Outputs of graphs of others that have more channels than there are classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from t2sda.errors import UserError

from .description import FLOATS, Signature
from .opened import Runner


def without_channels(
    signature: Signature, run: Runner, dropped: tuple[int, ...], path: object
) -> tuple[Signature, Runner]:
    """A graph whose output lacks some channels, those that stand for no class.

    Raises:
        UserError: if the output has no such channels.
    """
    shape = signature.output_shape
    if len(shape) != 4 or signature.output_type not in FLOATS:
        raise UserError(
            f"{path}: gives {signature.output_type} of shape {shape}; --drop-channels is for "
            f"floats of shape (images, channels, height, width)"
        )
    channels = shape[1]
    wrong = [index for index in dropped if index < 0 or (channels or index + 1) <= index]
    if wrong or len(set(dropped)) != len(dropped):
        raise UserError(
            f"{path}: --drop-channels {' '.join(map(str, dropped))}: different channels are "
            f"needed, 0 to {'…' if channels is None else channels - 1}"
        )

    def run_without(images: np.ndarray) -> np.ndarray:
        output = run(images)
        if max(dropped) >= output.shape[1]:
            raise UserError(
                f"{path}: gives {output.shape[1]} channels, none of them {max(dropped)}"
            )
        return np.delete(output, dropped, axis=1)

    left = None if channels is None else channels - len(dropped)
    return replace(signature, output_shape=(shape[0], left, *shape[2:])), run_without
