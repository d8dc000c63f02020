"""What every loss needs of arithmetic: precision, unit vectors, uniform numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or in float64 where they are: no loss is taken in half precision."""
    return values if values.dtype == torch.float64 else values.float()


def l2_normalize(vectors: Tensor) -> Tensor:
    """norm(.) of Eq. (6) along the last dimension; a zero vector stays zero.

    No epsilon: dividing a zero vector by one would blow its gradient up a billionfold.
    """
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norms.masked_fill(norms == 0, 1.0)


def uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """float32 numbers from U[0, 1), drawn where the generator lives and moved to `device`."""
    return torch.rand(shape, generator=generator, device=generator.device).to(device)


def draw_below(counts: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Integers uniform in [0, counts), with replacement; 0 where a count is 0.

    Args:
        counts: int64, broadcastable to `shape`, at most 2**24: below it, the largest float32 under
            1 times a count never rounds up to the count.
        shape: of the result.
        generator: consumed by prod(shape) numbers, whatever the counts are.
    """
    return (uniform(shape, generator, counts.device) * counts).long()
