"""Weights that an ONNX file keeps in other files: they must lie in its own folder."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from t2sda.errors import UserError


def check_external_data(path: Path) -> None:
    """Refuse a file that would read elsewhere than below its folder, before any runtime opens it.

    Without the package `onnx` nothing is checked here; ONNX Runtime has such a check of its own.

    Raises:
        UserError: naming what the file wants to read.
    """
    try:
        onnx = importlib.import_module("onnx")
    except ImportError:
        return
    try:
        model_proto = onnx.load(path, load_external_data=False)
    except Exception:  # no ONNX file; the runtime says so in its own words
        return
    folder = path.parent.resolve()
    for tensor in _tensors(model_proto):
        location = _location_of(tensor)
        if location is None:
            continue
        target = folder / location
        if Path(location).is_absolute() or not target.resolve().is_relative_to(folder):
            raise UserError(
                f"{path}: wants to read its weights from '{location}', outside its folder; this is "
                f"refused. Export it again into one file"
            )
        if not target.is_file():
            raise UserError(f"{path}: its weights file '{location}' is not beside it")


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a message of protobuf, however deep: also of constants and of branches."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if isinstance(value, Sequence) else (value,):
                yield from _tensors(item)


def _location_of(tensor: Any) -> str | None:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
