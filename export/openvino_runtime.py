"""OpenVINO: IR and ONNX files compiled for this machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.errors import UserError
from t2sda.inference.memory import is_out_of_memory

from .metadata import KEYS
from .packages import require
from .session import DeviceUnavailableError, first_line
from .signal_stack import signal_stack_kept

SECTION = "t2sda"
"""Where an IR holds our metadata; of an ONNX file OpenVINO reads it under "framework"."""
DEVICES = {"cpu": "CPU", "auto": "CPU"}


def open_core() -> Any:
    """OpenVINO's entrance, its CPU plugin loaded; raises UserError where the package is missing.

    The plugin replaces the alternate signal stack when it is loaded, so that is undone here.
    """
    openvino = require("openvino", "openvino")
    core = openvino.Core()
    with signal_stack_kept(), suppress(RuntimeError):  # whoever wants the CPU asks if it is there
        cpu_capabilities(core)
    return core


def read_model(path: Path) -> Any:
    """The graph of an IR (`.xml`, with its `.bin`) or ONNX file; UserError if it is none."""
    core = open_core()
    if path.suffix.lower() == ".xml" and not path.with_suffix(".bin").is_file():
        raise UserError(f"{path}: {path.with_suffix('.bin').name}, its weights, is not beside it")
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: OpenVINO cannot load this file: {_cause(error)}") from None


def properties_of(model: Any) -> dict[str, str]:
    """What the file says about itself, as it was written."""
    for section in (SECTION, "framework"):
        if model.has_rt_info([section, "format"]):
            return {
                key: str(model.get_rt_info([section, key]).value)
                for key in KEYS
                if model.has_rt_info([section, key])
            }
    return {}


def set_properties(model: Any, properties: Mapping[str, str]) -> None:
    """Write metadata where `properties_of` finds it."""
    for key, value in properties.items():
        model.set_rt_info(value, [SECTION, key])


class OpenVinoRunner:
    """Batches through a compiled graph of one input and one output; safe from several threads.

    Args:
        model: of `read_model`.
        device: "cpu" or "auto".
        precision: "fp32", "fp16", "bf16" or "int8"; what is not bf16 computes its floating-point
            part in float32, so that a CPU with bf16 instructions changes nothing by itself.
        threads: of each call; 0: one a core.
        streams: calls that run at the same time, each with its own threads; others wait.
        name: what messages call the model.

    Raises:
        DeviceUnavailableError: if the device is none of OpenVINO's here.
        UserError: if the graph cannot be compiled.
    """

    def __init__(
        self,
        model: Any,
        device: str,
        precision: str,
        threads: int,
        name: object,
        streams: int = 1,
    ) -> None:
        openvino = require("openvino", "openvino")
        core = open_core()
        if device not in DEVICES or DEVICES[device] not in core.available_devices:
            raise DeviceUnavailableError(
                f"device {device}: OpenVINO {openvino.__version__} runs on "
                f"{', '.join(core.available_devices)} here; use --device cpu"
            )
        if precision == "bf16" and "BF16" not in cpu_capabilities(core):
            raise UserError(
                f"{name}: is in bf16, which this CPU has no instructions for; use a file in fp32 "
                f"(`t2sda export openvino --precision fp32`)"
            )
        settings: dict[str, Any] = {
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads * streams
        self._compile = partial(core.compile_model, model, DEVICES[device], settings)
        try:
            self._compiled = self._compile()
        except RuntimeError as error:
            raise UserError(f"{name}: OpenVINO cannot compile it: {_cause(error)}") from None
        self._local = threading.local()

    @property
    def precision(self) -> str:
        """What the floating-point part is computed in, as OpenVINO says: "f32" or "bf16"."""
        element = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        return element.get_type_name()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The first output for a batch; raises UserError if the graph refuses it."""
        return self.all_outputs(images)[0]

    def all_outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """Every output, copied out of the runtime's own memory."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        request = self._local.request
        try:
            # `infer` returns without an error where memory was short, with results of before.
            request.start_async([np.ascontiguousarray(images)])
            request.wait()
        except RuntimeError as error:
            if is_out_of_memory(error):
                self._start_anew()
            raise UserError(
                f"OpenVINO cannot run pictures of shape {images.shape}: {_cause(error)}"
            ) from None
        count = len(self._compiled.outputs)
        return [request.get_output_tensor(index).data.copy() for index in range(count)]

    def _start_anew(self) -> None:
        """A graph that ran out of memory would fail at pictures of the size before from then on."""
        with suppress(RuntimeError):
            self._compiled = self._compile()
            self._local = threading.local()


def check_precision_runs(precision: str) -> None:
    """Raise UserError if this CPU could not run, and so not verify, a file in it."""
    if precision == "bf16" and "BF16" not in cpu_capabilities(open_core()):
        raise UserError(
            "--precision bf16: this CPU has no instructions for it, so the file could not be "
            "verified; use fp32, or export on the machine that will run it"
        )


def cpu_capabilities(core: Any) -> list[str]:
    """What the CPU computes in, in OpenVINO's words ("FP32", "BF16", "INT8", …)."""
    return list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _cause(error: Exception) -> str:
    """OpenVINO's messages begin with places in its sources; the last line says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else first_line(error)
