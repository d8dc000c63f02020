"""Autocast and loss scaling: SOLVER.PRECISION."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from t2sda.config import SCHEMA, Field

SCHEMA.declare(
    "SOLVER",
    {
        "PRECISION": Field(
            "fp32",
            "arithmetic of forwards and backwards; weights and optimizer stay float32, and so do "
            "softmax and the contrastive logits",
            choices=("fp32", "bf16", "fp16"),
        )
    },
)

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How numbers are computed, and the loss scale that float16 needs.

    Args:
        name: "fp32", "bf16" or "fp16".
        device: where the model is.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """The context of every forward."""
        dtype = _AUTOCAST_DTYPES.get(self.name)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss`, scaled where float16 needs it."""
        self.scaler.scale(loss).backward()

    def load_scale(self, state: dict[str, Any]) -> None:
        """Go on with a checkpoint's loss scale; one written without float16 has none."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients back to their true size."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step the optimizer; float16 skips a step whose gradients overflowed.

        The scaler reads its overflow flag on the host: a second synchronisation, float16 only.
        """
        self.scaler.step(optimizer)

    def update(self) -> None:
        """After all optimizers: float16 halves its scale if the gradients of one overflowed."""
        self.scaler.update()

    @property
    def may_overflow(self) -> bool:
        """Whether a non-finite gradient may mean that float16's scale is too large.

        Below a scale of 1 it cannot: the gradient itself is not finite.
        """
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1
