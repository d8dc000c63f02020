"""Networks without memory: names and shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def on_meta_device() -> Iterator[None]:
    """What is built within has names and shapes, and takes neither memory nor random numbers."""
    with torch.device("meta"), _NoNormalDraws():
        yield


class _NoNormalDraws(TorchFunctionMode):
    """On the meta device `normal_` draws nothing, yet imports half of torch's compiler.

    Before PyTorch 2.9 that import fails there, and leaves the compiler unusable.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is Tensor.normal_ else func(*args, **(kwargs or {}))
