"""Graphs that take a fixed number of images: batches are filled up, and cut again."""

from __future__ import annotations

import numpy as np

from .opened import Runner


def whole_batches(run: Runner, size: int | None) -> Runner:
    """`run`, or where it takes exactly `size` images, more than one, what gives it as many.

    Args:
        run: of a graph.
        size: the fixed number of images; None: any.
    """
    if size is None or size == 1:
        return run

    def filled(images: np.ndarray) -> np.ndarray:
        found = []
        for begin in range(0, len(images), size):
            part = images[begin : begin + size]
            missing = size - len(part)
            full = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            found.append(run(full)[: len(part)])
        return np.concatenate(found)

    return filled
