"""ONNX files in ONNX Runtime: on the device that was asked for, or not at all."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.errors import UserError

from .description import Signature, chosen_output
from .devices import gpu_index, kind_of_device
from .metadata import check_seal, is_ours
from .onnx_content import (
    check_external_data,
    check_weights,
    content_of,
    properties_of_onnx,
)
from .opened import LoadOptions, OpenedFile
from .packages import DeviceUnavailableError, first_line, require
from .unloadable import unloadable

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_in_onnxruntime(path: Path, options: LoadOptions) -> OpenedFile:
    """An ONNX file in ONNX Runtime; one of ours must be as it was written."""
    properties = checked_properties(path)
    session = open_session(path, options.device, threads=options.threads)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    check_one_input(path, len(inputs), len(outputs))
    wanted = options.description.output
    taken, given = inputs[0], outputs[chosen_output([{o.name} for o in outputs], wanted, path)]
    signature = Signature(
        _sizes(taken.shape), _type(taken.type), _sizes(given.shape), _type(given.type)
    )
    static = None not in signature.input_shape
    return OpenedFile(
        static_runner(session, path, options.threads, options.device, given.name)
        if static
        else SessionRunner(session, output=given.name),
        properties,
        signature,
        max_batch_size=signature.input_shape[0] if signature.input_shape else None,
    )


def checked_properties(path: Path) -> dict[str, str]:
    """Metadata of an ONNX file that is safe to open: nothing in it is elsewhere, changed or NaN."""
    check_external_data(path)
    properties = properties_of_onnx(path)
    if is_ours(properties):
        check_seal(properties, content_of(path), path)
    check_weights(path)
    return properties


def takes_gpu(device: str) -> bool:
    """Whether a session for `device` would run on a GPU here."""
    runtime = require("onnxruntime", "onnx")
    return device != "cpu" and PROVIDERS["cuda"] in runtime.get_available_providers()


def check_one_input(path: Path, num_inputs: int, num_outputs: int) -> None:
    """Raise UserError for what is no graph of images."""
    if num_inputs != 1 or not num_outputs:
        raise UserError(
            f"{path}: has {num_inputs} inputs and {num_outputs} outputs; a graph that segments "
            f"images has one input, and its first output, or --output-name, is what counts"
        )


def _sizes(shape: list[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _type(name: str) -> str:
    """NumPy's name of an element type of ONNX Runtime, such as "tensor(float)"."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)


def open_session(
    model: Path | bytes, device: str, *, name: object = None, threads: int = 0, graphs: bool = False
) -> Any:
    """A session on `device` ("cpu", "cuda", "cuda:N" or "auto").

    Args:
        model: a file, or the content of one.
        device: where it must run; "auto" takes the GPU where ONNX Runtime can use one.
        name: what messages call the model; by default its path.
        threads: within an operator, on a CPU; 0: one a core.
        graphs: on a GPU, record the whole network once and replay it; shapes must be fixed.

    Raises:
        DeviceUnavailableError: if the device cannot be used; ONNX Runtime itself would only print
            a warning and run on the CPU.
        UserError: if it is no ONNX model.
    """
    if device == "auto":
        try:
            return open_session(model, "cuda", name=name, threads=threads, graphs=graphs)
        except DeviceUnavailableError:
            device = "cpu"
    runtime = require("onnxruntime", "onnx")
    provider = PROVIDERS[kind_of_device(device)]
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # fatal; what goes wrong is raised below, in one message
    options.intra_op_num_threads = threads
    # Threads that wait in a loop take the core from those that decode and encode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    if provider not in runtime.get_available_providers():
        raise DeviceUnavailableError(
            f"device {device}: this onnxruntime ({runtime.__version__}) was built without "
            f"{provider}; for a GPU, pip uninstall onnxruntime, pip install 't2sda[gpu]'"
        )
    settings = _cuda_settings(device, graphs) if provider == PROVIDERS["cuda"] else {}
    try:
        session = runtime.InferenceSession(source, options, providers=[(provider, settings)])
    except Exception as error:  # its errors have no common base but Exception
        called = name or ("model" if isinstance(model, bytes) else model)
        raise unloadable(called, "ONNX Runtime", runtime.__version__, first_line(error)) from None
    used = session.get_providers()[0]
    if used != provider:
        raise DeviceUnavailableError(
            f"device {device}: {provider} was asked for, but ONNX Runtime fell back to {used}; "
            f"`t2sda env` shows what works here"
        )
    return session


def _cuda_settings(device: str, graphs: bool) -> dict[str, str]:
    index = gpu_index(device)
    number = {} if index is None else {"device_id": str(index)}
    return number | ({"enable_cuda_graph": "1"} if graphs else {})


def static_runner(
    session: Any, model: Path, threads: int, device: str, output: str | None = None
) -> SessionRunner:
    """Runs a graph whose shapes are fixed, on a GPU as one CUDA graph where it can be recorded.

    ONNX Runtime refuses to record control flow, and nodes that it left on the CPU; the session
    then runs them one by one.

    Args:
        session: of `open_session`.
        model, threads, device: that it was opened with.
        output: as of a SessionRunner.
    """
    if session.get_providers()[0] != PROVIDERS["cuda"]:
        return SessionRunner(session, output=output)
    try:
        device = "cuda" if device == "auto" else device
        recording = open_session(model, device, threads=threads, graphs=True)
    except UserError:  # not for the file or the GPU: `session` has both
        return SessionRunner(session, output=output)
    return SessionRunner(recording, recorded=True, gpu=gpu_index(device) or 0, output=output)


class SessionRunner:
    """Batches through a session: one of its outputs; safe from several threads.

    Tensors of a recorded CUDA graph stay where they are between calls (I/O binding); calls then
    come one after the other.

    Args:
        session: of `open_session`.
        recorded: whether it was opened with `graphs`.
        gpu: number of the GPU that it was opened on, of a recorded one.
        output: name of the one that counts; None: the first.
    """

    def __init__(
        self, session: Any, *, recorded: bool = False, gpu: int = 0, output: str | None = None
    ) -> None:
        self._session = session
        self.input_name = session.get_inputs()[0].name
        self._output_name = output or session.get_outputs()[0].name
        self._bound = recorded
        self._gpu = gpu
        self._lock = threading.Lock()
        self._input: Any = None
        self._binding: Any = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The output for a batch; raises UserError if the session refuses it."""
        try:
            if self._bound:
                with self._lock:
                    return self._run_bound(images)
            return self._session.run([self._output_name], {self.input_name: images})[0]
        except Exception as error:  # its errors have no common base but Exception
            raise UserError(
                f"ONNX Runtime cannot run images of shape {images.shape}: {first_line(error)}"
            ) from None

    def _run_bound(self, images: np.ndarray) -> np.ndarray:
        runtime = require("onnxruntime", "onnx")
        if self._binding is None:
            self._input = runtime.OrtValue.ortvalue_from_numpy(images, "cuda", self._gpu)
            self._binding = self._session.io_binding()
            self._binding.bind_ortvalue_input(self.input_name, self._input)
            self._binding.bind_output(self._output_name, "cuda", self._gpu)
        self._input.update_inplace(images)
        self._session.run_with_iobinding(self._binding)
        return self._binding.get_outputs()[0].numpy()
