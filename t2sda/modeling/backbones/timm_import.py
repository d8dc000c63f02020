"""Importing timm, which imports torchvision, which may not fit the installed torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from importlib.machinery import PathFinder
from types import ModuleType

import torch

from t2sda.errors import UserError

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_timm() -> ModuleType:
    """The timm package, imported on first use.

    Raises:
        UserError: with the command that installs it.
    """
    declare_missing_torchvision_operators()
    try:
        # The first network may be built on the meta device, where an import of PyTorch's compiler,
        # which torchvision wants, fails before 2.9.
        with torch.device("cpu"):
            return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name not in ("timm", "torchvision"):
            raise
        raise UserError(
            f"MODEL.BACKBONE: networks of timm need {error.name}, which is not installed; "
            f"pip install timm"
        ) from None


@cache
def declare_missing_torchvision_operators() -> torch.library.Library | None:
    """Make `import torchvision` work where its compiled half does not load.

    timm cannot be imported without torchvision, and PyPI's torchvision is compiled for CUDA: beside
    a CPU-only torch its extension does not load, and its Python half then fails on import with
    "operator torchvision::nms does not exist", because it describes operators that the extension
    would have brought. Declaring their names, without any implementation, is all it needs; we call
    neither. Where the extension loads, or torchvision is imported already, nothing is done.

    Returns:
        The library that holds the declarations (the cache keeps it alive, and with it they live),
        or None if nothing had to be done.
    """
    if "torchvision" in sys.modules or _torchvision_extension_loads():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)
    return library


def _torchvision_extension_loads() -> bool:
    package = importlib.util.find_spec("torchvision")  # finds it, does not import it
    if package is None or package.submodule_search_locations is None:
        return True  # not installed: nothing to repair, the import of timm will say so
    extension = PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except OSError:
        return False
    return True
