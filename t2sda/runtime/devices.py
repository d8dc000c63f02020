"""Names of devices: cpu, cuda, cuda:N, or auto for the GPU where there is one that works."""

from __future__ import annotations

import re

from t2sda.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "cuda:N")
"""How they are written; N counts the GPUs from 0 on."""
_DEVICE = re.compile(r"auto|cpu|cuda(?::(\d{1,3}))?")


def check_device(name: str) -> None:
    """Raise UserError unless it names a device; whether that is here is another question."""
    if not _DEVICE.fullmatch(name):
        raise UserError(f"device '{name}': unknown; one of {', '.join(DEVICES)}")


def gpu_index(device: str) -> int | None:
    """Of "cuda:N"; None where no GPU is named by its number."""
    found = _DEVICE.fullmatch(device)
    return int(found[1]) if found and found[1] else None


def kind_of_device(device: str) -> str:
    """The name without its number."""
    return device.partition(":")[0]
