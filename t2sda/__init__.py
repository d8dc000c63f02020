"""t2sda: domain-adaptive semantic segmentation from rendered streets to real ones."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2sda import datasets as datasets
    from t2sda.api import evaluate, load_config, train
    from t2sda.runtime.loading import load_model

__version__ = "0.1.0"
__all__ = ["datasets", "evaluate", "load_config", "load_model", "train"]

_OFFERED = {
    "evaluate": "t2sda.api",
    "load_config": "t2sda.api",
    "load_model": "t2sda.runtime.loading",
    "train": "t2sda.api",
}
"""Name: the module it is imported from when it is asked for; importing t2sda imports nothing."""


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module("t2sda.datasets")
    if name in _OFFERED:
        return getattr(importlib.import_module(_OFFERED[name]), name)
    raise AttributeError(f"module 't2sda' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
