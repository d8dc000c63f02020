"""Counts what would make the host wait for a device."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
SIZED_BY_VALUES = {
    *(aten.nonzero, aten.masked_select, aten.bincount, aten._unique2),
    *(aten.unique_consecutive, aten.unique_dim),
}


class HostReads(TorchDispatchMode):
    """How often values are read, or shapes follow them, while it is entered.

    On the CPU, where reading is free: what is counted is what would be a wait on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self._tolist = mock.patch.object(Tensor, "tolist", self._counted(Tensor.tolist))

    def __enter__(self) -> HostReads:
        self._tolist.start()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._tolist.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        masks = packet is aten.index and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.reads += masks or packet is aten._local_scalar_dense or packet in SIZED_BY_VALUES
        return func(*args, **(kwargs or {}))

    def _counted(self, tolist: Any) -> Any:
        def read(tensor: Tensor) -> Any:
            self.reads += 1
            return tolist(tensor)

        return read
