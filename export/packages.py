"""The packages that only exports and their runtimes need, imported on first use."""

from __future__ import annotations

import importlib
from types import ModuleType

from t2sda.errors import UserError


def require(package: str, extra: str) -> ModuleType:
    """The package; raises UserError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{package} cannot be imported ({error}); pip install 't2sda[{extra}]'"
        ) from None
