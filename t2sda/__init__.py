"""t2sda: domain-adaptive semantic segmentation from rendered streets to real ones."""

import importlib
from typing import Any

__version__ = "0.1.0"

_OFFERED = {"load_model": "t2sda.runtime.loading"}
"""Name: the module it is imported from when it is asked for; importing t2sda imports nothing."""


def __getattr__(name: str) -> Any:
    if name in _OFFERED:
        return getattr(importlib.import_module(_OFFERED[name]), name)
    raise AttributeError(f"module 't2sda' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED])
