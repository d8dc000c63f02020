"""ONNX Runtime sessions that run where they were asked to, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t2sda.errors import UserError

from .packages import require


class DeviceUnavailableError(UserError):
    """ONNX Runtime cannot use the device that was asked for."""


PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(model: Path | bytes, device: str, *, name: object = None) -> Any:
    """A session on `device` ("cpu", "cuda" or "auto").

    Args:
        model: a file, or the content of one.
        device: where it must run; "auto" takes the GPU where ONNX Runtime can use one.
        name: what messages call the model; by default its path.

    Raises:
        DeviceUnavailableError: if the device cannot be used; ONNX Runtime itself would only print
            a warning and run on the CPU.
        UserError: if it is no ONNX model.
    """
    if device == "auto":
        try:
            return open_session(model, "cuda", name=name)
        except DeviceUnavailableError:
            device = "cpu"
    runtime = require("onnxruntime", "onnx")
    provider = PROVIDERS[device]
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; what goes wrong is raised below, in one message
    source = model if isinstance(model, bytes) else str(model)
    if provider not in runtime.get_available_providers():
        raise DeviceUnavailableError(
            f"device {device}: this onnxruntime ({runtime.__version__}) was built without "
            f"{provider}; for a GPU, pip uninstall onnxruntime, pip install 't2sda[gpu]'"
        )
    try:
        session = runtime.InferenceSession(source, options, providers=[provider])
    except Exception as error:  # its errors have no common base but Exception
        raise UserError(
            f"{name or model}: ONNX Runtime cannot load this file: {_first_line(error)}"
        ) from None
    used = session.get_providers()[0]
    if used != provider:
        raise DeviceUnavailableError(
            f"device {device}: {provider} was asked for, but ONNX Runtime fell back to {used}; "
            f"`t2sda env` shows what works here"
        )
    return session


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
