"""The packages that only exports and their runtimes need, imported on first use."""

from __future__ import annotations

import importlib
from types import ModuleType

from t2sda.errors import UserError


class DeviceUnavailableError(UserError):
    """A runtime cannot use the device that was asked for."""


def require(package: str, extra: str) -> ModuleType:
    """The package; raises UserError with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{package} cannot be imported ({error}); pip install 't2sda[{extra}]'"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]
