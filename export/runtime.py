"""`load_model`: one interface to a trained network, whatever file it is in.

from t2sda import load_model
model = load_model("student.onnx")
labels = model.predict("street.jpg")  # (H, W) uint8 train ids
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import torch

from t2sda.engine.device import choose_device
from t2sda.errors import MissingFileError, UserError
from t2sda.inference.checkpoints import model_of_checkpoint, open_checkpoint

from .external_data import check_external_data
from .foreign import Description, Signature, described
from .loaded import CheckpointModel, FileModel, LoadedModel, PathLike
from .metadata import Metadata, is_ours
from .openvino_runtime import OpenVinoRunner, properties_of, read_model
from .session import SessionRunner, open_session, static_runner
from .tensorrt_runtime import ENGINE_SUFFIXES, TARGET_KEY, load_engine, read_sidecar

RUNTIMES = ("torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
DEVICES = ("auto", "cpu", "cuda")
RUNTIMES_OF = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
}
"""By a file's ending, what can run it; the first is the default. An engine says it beside itself,
everything else is for torch."""


def load_model(
    path: PathLike,
    runtime: str | None = None,
    device: str | None = None,
    *,
    threads: int = 0,
    streams: int = 1,
    description: Description | None = None,
    branch: str = "student",
) -> LoadedModel:
    """A trained network, ready to segment.

    Args:
        path: a checkpoint, a run's folder (its newest checkpoint), an ONNX file, an OpenVINO IR
            (`.xml`), or a TensorRT engine (`.engine`).
        runtime: "torch", "onnxruntime", "openvino", "tensorrt" or "tensorrt-rtx"; by default the
            one that the file is made for.
        device: "cpu", "cuda", or "auto" for the GPU where there is one that works; what is asked
            for by name is used, or an error. By default engines run on "cuda", all else on "cpu".
        threads: of a CPU within one picture; 0: one a core. For torch it is the whole process's.
        streams: calls from several threads that OpenVINO runs at the same time; the other
            runtimes run as many as come.
        description: of a file that `t2sda export` did not write.
        branch: "student" or "teacher", of a checkpoint.

    Raises:
        MissingFileError: if there is nothing at `path`.
        UserError: if it is none of these, or the runtime or device does not fit or work.
    """
    path = Path(path)
    importlib.import_module("t2sda.builtin")  # the registries that files name things of
    chosen = runtime_for(path, runtime)
    device = _checked_device(device, chosen)
    if chosen == "torch":
        if description:
            raise UserError(f"{path}: a checkpoint describes itself; leave the description out")
        return _load_checkpoint(path, device, threads, branch)
    if chosen.startswith("tensorrt"):
        return load_engine(path, device)
    if path.suffix.lower() == ".onnx":
        check_external_data(path)
    description = description or Description()
    if chosen == "onnxruntime":
        return _load_in_onnxruntime(path, device, threads, description)
    return _load_in_openvino(path, device, (threads, streams), description)


def runtime_for(path: Path, runtime: str | None) -> str:
    """What runs the file: what is asked for, or its default; see `load_model`."""
    if runtime is None:
        return _able(path)[0]
    if runtime not in RUNTIMES:
        raise UserError(f"runtime '{runtime}': unknown; one of {', '.join(RUNTIMES)}")
    return runtimes_for(path, [runtime])[0]


def runtimes_for(path: Path, asked: Sequence[str]) -> list[str]:
    """Those of `asked` that can run the file, in their order; UserError if none can."""
    able = _able(path)
    found = [runtime for runtime in asked if runtime in able]
    if not found:
        engine = asked[0].startswith("tensorrt") and able[0] == "onnxruntime"
        advice = "; `t2sda export tensorrt` makes an engine of it" if engine else ""
        raise UserError(
            f"{path}: is a file for {' or '.join(able)}; {' and '.join(asked)} cannot run it"
            f"{advice}"
        )
    return found


def _able(path: Path) -> Sequence[str]:
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    if not path.is_file():
        return ("torch",)
    if path.suffix.lower() in ENGINE_SUFFIXES:
        return (read_sidecar(path)[TARGET_KEY],)
    return RUNTIMES_OF.get(path.suffix.lower(), ("torch",))


def _checked_device(device: str | None, runtime: str) -> str:
    if device is None:
        return "cuda" if runtime.startswith("tensorrt") else "cpu"
    if device not in DEVICES:
        raise UserError(f"device '{device}': unknown; one of {', '.join(DEVICES)}")
    return device


def _load_checkpoint(path: Path, device: str, threads: int, branch: str) -> LoadedModel:
    torch_device = choose_device(device)
    checkpoint = open_checkpoint(path)
    if threads:
        torch.set_num_threads(threads)
    return CheckpointModel(
        model_of_checkpoint(checkpoint, branch),
        checkpoint.taxonomy,
        tuple(checkpoint.cfg.EVALUATION.IMAGE_SIZE) or None,
        torch_device,
    )


def _load_in_onnxruntime(
    path: Path, device: str, threads: int, description: Description
) -> LoadedModel:
    session = open_session(path, device, threads=threads)
    taken, given = session.get_inputs(), session.get_outputs()
    _check_one_of_each(path, len(taken), len(given))
    signature = Signature(
        _sizes(taken[0].shape), _type(taken[0].type), _sizes(given[0].shape), _type(given[0].type)
    )
    properties = session.get_modelmeta().custom_metadata_map
    metadata = _metadata(path, properties, signature, description)
    static = None not in signature.input_shape
    runner = static_runner(session, path, threads) if static else SessionRunner(session)
    return FileModel(
        path,
        runner,
        metadata,
        runtime="onnxruntime",
        max_batch_size=signature.input_shape[0],
        normalises=signature.input_type == "uint8",
    )


def _load_in_openvino(
    path: Path, device: str, threads_and_streams: tuple[int, int], description: Description
) -> LoadedModel:
    threads, streams = threads_and_streams
    graph = read_model(path)
    _check_one_of_each(path, len(graph.inputs), len(graph.outputs))
    taken, given = graph.inputs[0], graph.outputs[0]
    signature = Signature(
        *(_sizes_of_partial(taken), taken.element_type.to_dtype().name),
        *(_sizes_of_partial(given), given.element_type.to_dtype().name),
    )
    metadata = _metadata(path, properties_of(graph), signature, description)
    return FileModel(
        path,
        OpenVinoRunner(graph, device, metadata.precision, threads, path, streams),
        metadata,
        runtime="openvino",
        max_batch_size=signature.input_shape[0],
        normalises=signature.input_type == "uint8",
    )


def _metadata(
    path: Path, properties: dict[str, str], signature: Signature, description: Description
) -> Metadata:
    if not is_ours(properties):
        return described(signature, description, path)
    if description:
        raise UserError(
            f"{path}: describes itself; leave out --taxonomy, --pixel-mean and the like"
        )
    return Metadata.from_properties(properties, path)


def _check_one_of_each(path: Path, num_inputs: int, num_outputs: int) -> None:
    if (num_inputs, num_outputs) != (1, 1):
        raise UserError(
            f"{path}: has {num_inputs} inputs and {num_outputs} outputs; a graph that segments "
            f"pictures has one of each"
        )


def _sizes(shape: list[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def _sizes_of_partial(port: object) -> tuple[int | None, ...]:
    shape = port.get_partial_shape()  # type: ignore[attr-defined]
    return tuple(size.get_length() if size.is_static else None for size in shape)


def _type(name: str) -> str:
    """NumPy's name of an element type of ONNX Runtime, such as "tensor(float)"."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)
