"""OpenVINO: IR and ONNX files compiled for this machine."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.errors import UserError
from t2sda.resources import is_out_of_memory

from .description import Signature, chosen_output
from .metadata import DIGEST_KEY, KEYS, check_seal, is_ours, sealed
from .onnx_content import external_files, has_nonsense, nonsense_in
from .onnxruntime_file import check_one_input, checked_properties
from .opened import LoadOptions, OpenedFile
from .packages import DeviceUnavailableError, first_line, require
from .signal_stack import signal_stack_kept
from .unloadable import again, check_is_ir, unloadable

SECTION = "t2sda"
"""Where an IR holds our metadata; of an ONNX file OpenVINO reads it under "framework"."""
DEVICES = {"cpu": "CPU", "auto": "CPU"}


_DIGEST_VALUE = re.compile(rb'(<t2sda>.*?<digest value=")([^"]*)(")', re.DOTALL)
_BLANK = b"0" * 64
"""Stands for the digest in the text that the digest is taken of."""


def open_in_openvino(path: Path, options: LoadOptions) -> OpenedFile:
    """An IR or ONNX file in OpenVINO; one of ours must be as it was written."""
    if path.suffix.lower() == ".onnx":
        properties = checked_properties(path)
        graph = read_model(path)
    else:
        graph = _checked_ir(path)
        properties = properties_of(graph)
    check_one_input(path, len(graph.inputs), len(graph.outputs))
    names = [port.get_names() for port in graph.outputs]
    counts = chosen_output(names, options.description.output, path)
    taken, given = graph.inputs[0], graph.outputs[counts]
    signature = Signature(
        *(_sizes(taken), taken.element_type.to_dtype().name),
        *(_sizes(given), given.element_type.to_dtype().name),
    )
    precision = properties.get("precision", "").strip('"')
    run = OpenVinoRunner(
        graph, options.device, precision, options.threads, path, options.streams, counts
    )
    size = signature.input_shape[0] if signature.input_shape else None
    return OpenedFile(run, properties, signature, max_batch_size=size)


def _checked_ir(path: Path) -> Any:
    """The graph of an IR whose text and weights are as they were written, if we wrote them."""
    check_is_whole(path)
    stated = _DIGEST_VALUE.search(path.read_bytes())
    if stated:
        digest = stated[2].decode(errors="replace").replace("&quot;", '"')
        check_seal({DIGEST_KEY: digest}, ir_content(path), path)
    graph = read_model(path)
    if not stated and is_ours(properties_of(graph)):
        check_seal({}, (), path)  # its digest was taken away
    _check_constants(graph, path)
    return graph


def ir_content(path: Path) -> Iterator[bytes]:
    """The text of an IR with its digest left blank, and its weights."""
    yield _DIGEST_VALUE.sub(rb"\g<1>" + _BLANK + rb"\g<3>", path.read_bytes())
    with path.with_suffix(".bin").open("rb") as weights:
        while part := weights.read(1 << 20):
            yield part


def with_blank_digest(properties: Mapping[str, str]) -> dict[str, str]:
    """Metadata as an IR is saved with it, to be sealed afterwards."""
    return {**properties, DIGEST_KEY: _BLANK.decode()}


def seal_ir(path: Path) -> None:
    """Write the digest into an IR that was saved with a blank one; its text holds the metadata."""
    digest = json.loads(sealed({}, ir_content(path))[DIGEST_KEY])
    text, count = _DIGEST_VALUE.subn(
        rb"\g<1>&quot;" + digest.encode() + rb"&quot;\g<3>", path.read_bytes()
    )
    assert count == 1
    path.write_bytes(text)


def _check_constants(graph: Any, path: Path) -> None:
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "Constant":
            numbers = np.asarray(operation.data)
            if numbers.dtype.kind == "f" and has_nonsense(numbers):
                raise nonsense_in(path, operation.get_friendly_name())


def _sizes(port: Any) -> tuple[int | None, ...]:
    shape = port.get_partial_shape()
    return tuple(size.get_length() if size.is_static else None for size in shape)


def open_core() -> Any:
    """OpenVINO's entrance, its CPU plugin loaded; raises UserError where the package is missing.

    The plugin replaces the alternate signal stack when it is loaded, so that is undone here.
    """
    openvino = require("openvino", "openvino")
    core = openvino.Core()
    with signal_stack_kept(), suppress(RuntimeError):  # whoever wants the CPU asks if it is there
        cpu_capabilities(core)
    return core


@contextmanager
def _without_links(path: Path) -> Iterator[Path]:
    """The file, or for as long as it is read one beside its weights, where links lead to those.

    OpenVINO follows no link out of the file's folder, which is how the cache of the Hugging Face
    hub keeps them; `check_external_data` has found them allowed. Files are linked hard where the
    system can, else copied; what is mapped into memory stays there.
    """
    weights = external_files(path) if path.suffix.lower() == ".onnx" else []
    folder = path.parent.resolve()
    if all(file.resolve().is_relative_to(folder) for file in weights):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="t2sda_") as temporary:
        for file in (path, *weights):
            place = Path(temporary) / file.relative_to(path.parent)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                place.hardlink_to(file.resolve())
            except OSError:  # another disk, or a system without such links
                shutil.copyfile(file, place)
        yield Path(temporary) / path.name


def read_model(path: Path) -> Any:
    """The graph of an IR (`.xml`, with its `.bin`) or ONNX file; UserError if it is none."""
    core = open_core()
    check_is_whole(path)
    try:
        with _without_links(path) as real:
            return core.read_model(str(real))
    except RuntimeError as error:
        raise unloadable(path, "OpenVINO", _version(), _cause(error)) from None


def check_is_whole(path: Path) -> None:
    """Raise UserError if what is called an IR is none, or its weights are not beside it."""
    if path.suffix.lower() != ".xml":
        return
    check_is_ir(path)
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise UserError(
            f"{path}: {weights.name}, its weights, is not beside it; copy it there, or "
            f"{again(path)}"
        )


def _version() -> str:
    return require("openvino", "openvino").__version__.partition("-")[0]


def properties_of(model: Any) -> dict[str, str]:
    """What the file says about itself, as it was written."""
    for section in (SECTION, "framework"):
        if model.has_rt_info([section, "format"]):
            return {
                key: str(model.get_rt_info([section, key]).value)
                for key in (*KEYS, DIGEST_KEY)
                if model.has_rt_info([section, key])
            }
    return {}


def set_properties(model: Any, properties: Mapping[str, str]) -> None:
    """Write metadata where `properties_of` finds it."""
    for key, value in properties.items():
        model.set_rt_info(value, [SECTION, key])


class OpenVinoRunner:
    """Batches through a compiled graph of one input; safe from several threads.

    Args:
        model: of `read_model`.
        device: "cpu" or "auto".
        precision: "fp32", "fp16", "bf16" or "int8"; what is not bf16 computes its floating-point
            part in float32, so that a CPU with bf16 instructions changes nothing by itself.
        threads: of each call; 0: one a core.
        streams: calls that run at the same time, each with its own threads; others wait.
        name: what messages call the model.
        output: which of its outputs counts.

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
        output: int = 0,
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
            cause = f"cannot compile it: {_cause(error)}"
            raise UserError(
                f"{name}: OpenVINO {_version()} {cause}; {again(Path(str(name)))}"
            ) from None
        self._local = threading.local()
        self._output = output

    @property
    def precision(self) -> str:
        """What the floating-point part is computed in, as OpenVINO says: "f32" or "bf16"."""
        element = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        return element.get_type_name()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The output that counts for a batch; raises UserError if the graph refuses it."""
        return self.all_outputs(images)[self._output]

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
                f"OpenVINO cannot run images of shape {images.shape}: {_cause(error)}"
            ) from None
        count = len(self._compiled.outputs)
        return [request.get_output_tensor(index).data.copy() for index in range(count)]

    def _start_anew(self) -> None:
        """A graph that ran out of memory would fail at images of the size before from then on."""
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
