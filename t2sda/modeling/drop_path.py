"""Stochastic depth (Huang et al., ECCV 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, zero a residual branch for whole images; the kept ones grow to the same mean.

    Args:
        probability: of dropping the branch of an image, in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """(B, …) → (B, …)."""
        if not self.training or self.probability == 0:
            return branch
        keep = 1 - self.probability
        shape = (branch.shape[0],) + (1,) * (branch.dim() - 1)
        return branch * torch.empty(shape, device=branch.device).bernoulli_(keep).div_(keep).to(
            branch.dtype
        )

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{self.probability:.3f}"
