"""t2sda: domain-adaptive semantic segmentation from rendered streets to real ones."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load_model`, when it is asked for: importing t2sda alone imports nothing heavy."""
    if name == "load_model":
        from t2sda.export.runtime import load_model

        return load_model
    raise AttributeError(f"module 't2sda' has no attribute '{name}'")
