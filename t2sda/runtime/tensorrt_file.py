"""Engines of TensorRT and TensorRT-RTX on the current GPU.

An engine cannot hold our metadata; it lies beside it as `NAME.engine.json`. Tensors on the GPU
are torch's, so that running an engine needs it; saying what an engine is does not.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from t2sda.errors import MissingFileError, UserError

from .description import Signature
from .devices import gpu_index
from .metadata import Metadata, check_seal, sealed
from .opened import LoadOptions, OpenedFile
from .packages import require
from .unloadable import again

if TYPE_CHECKING:
    import torch

TARGETS = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "trt-rtx")}
"""What an engine is for: the module that builds it, and the extra that installs that."""
ENGINE_SUFFIXES = (".engine", ".plan")
TARGET_KEY = "target"
PROFILE_KEY = "profile"
"""What the sidecar says besides our metadata; the profile is null for an engine of one size."""


def import_tensorrt(target: str) -> ModuleType:
    """TensorRT ("tensorrt") or TensorRT-RTX ("tensorrt-rtx"); UserError where it is missing."""
    return require(*TARGETS[target])


def has_gpu() -> bool:
    """Whether torch finds a GPU here."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def sidecar_of(engine: Path) -> Path:
    """Where the metadata of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def open_engine(path: Path, options: LoadOptions) -> OpenedFile:
    """An engine of `t2sda export tensorrt`, with its `.json` beside it, on this GPU.

    Raises:
        UserError: if it is not the engine that the `.json` was written with, or there is no GPU to
            run it on.
    """
    properties = read_sidecar(path)
    if options.device == "cpu" or not has_gpu():
        found = "none is usable here" if options.device != "cpu" else "device cpu was asked for"
        raise UserError(f"{path}: engines run on an NVIDIA GPU (device cuda), and {found}")
    content = path.read_bytes()
    check_seal(properties, [content], path)
    with _on_gpu(options.device):
        runner = EngineRunner(content, properties[TARGET_KEY], path)
    return OpenedFile(runner, properties, runner.signature, runner.max_batch_size)


def _on_gpu(device: str) -> AbstractContextManager[None]:
    """The GPU that is named by its number is the current one within.

    Raises:
        UserError: if there is none of that number.
    """
    import torch

    index = gpu_index(device)
    if index is not None and index >= torch.cuda.device_count():
        raise UserError(f"device {device}: torch finds {torch.cuda.device_count()} GPUs here")
    return torch.cuda.device(-1 if index is None else index)  # -1: as it is


def target_of(engine: Path) -> str:
    """What an engine was built for."""
    return read_sidecar(engine)[TARGET_KEY]


def read_sidecar(engine: Path) -> dict[str, Any]:
    """The metadata beside an engine; UserError if it is missing or none of ours."""
    sidecar = sidecar_of(engine)
    if not sidecar.is_file():
        raise MissingFileError(
            f"{engine}: {sidecar.name}, which says what it is, is not beside it; copy it there, or "
            f"{again(engine)}"
        )
    try:
        described = json.loads(sidecar.read_text(encoding="utf-8"))
        if described[TARGET_KEY] in TARGETS and PROFILE_KEY in described:
            return described
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    raise UserError(f"{sidecar}: damaged; {again(engine)}")


def sidecar_text(
    metadata: Metadata, target: str, extra: Mapping[str, object], engine: bytes
) -> str:
    """What lies beside an engine, with the digest of both."""
    properties = sealed(metadata.to_properties(), [engine])
    return json.dumps({TARGET_KEY: target, **extra, **properties}, indent=1) + "\n"


class EngineRunner:
    """Runs an engine of one input and one output on the GPU that was current when it was loaded.

    One call comes after the other.

    An engine of one shape is recorded once as a CUDA graph and replayed: hundreds of small kernels
    then start without the CPU.

    Args:
        engine: serialised.
        target: what it was built for.
        name: what messages call it.
    Raises:
        UserError: if the engine does not load on this GPU.
    """

    def __init__(self, engine: bytes, target: str, name: object = "m.engine") -> None:
        self._torch = require("torch", "tensorrt")
        self._trt = import_tensorrt(target)
        runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        self._engine: Any = runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise UserError(
                f"{name}: {target} {self._trt.__version__} cannot load this engine here; one "
                f"belongs to the version and the kind of GPU that it was built with: "
                f"{again(Path(str(name)))} on this machine"
            )
        self._gpu = self._torch.cuda.current_device()
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._input, self._output = sorted(names, key=self._is_output)
        self._static = -1 not in tuple(self._engine.get_tensor_shape(self._input))
        self._lock = threading.Lock()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def signature(self) -> Signature:
        """Of the engine; sizes of a profile vary."""
        shapes = (
            tuple(self._engine.get_tensor_shape(name)) for name in (self._input, self._output)
        )
        taken, given = (tuple(None if side == -1 else side for side in shape) for shape in shapes)
        output_type = str(self._output_dtype()).removeprefix("torch.")
        return Signature(taken, "uint8", given, output_type)

    @property
    def max_batch_size(self) -> int:
        """Most images at once."""
        if self._static:
            return int(self._engine.get_tensor_shape(self._input)[0])
        return int(self._engine.get_tensor_profile_shape(self._input, 0)[2][0])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The output for a batch, (B, H, W, 3) or as the graph takes it."""
        with self._lock, self._torch.cuda.device(self._gpu):  # threads begin on the first one
            return self._run(self._torch.from_numpy(np.ascontiguousarray(images))).cpu().numpy()

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        if not self._context.set_input_shape(self._input, tuple(images.shape)):
            raise UserError(f"the engine was not built for images of shape {tuple(images.shape)}")
        if self._buffers is None or self._buffers[0].shape != images.shape:
            self._allocate(images)
        assert self._buffers is not None
        taken, given = self._buffers
        taken.copy_(images, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._execute()
            if self._static:
                self._record()
        self._torch.cuda.current_stream().synchronize()
        return given

    def _allocate(self, images: torch.Tensor) -> None:
        shape = tuple(self._context.get_tensor_shape(self._output))
        taken = self._torch.empty_like(images, device="cuda")
        given = self._torch.empty(shape, dtype=self._output_dtype(), device="cuda")
        self._buffers = (taken, given)
        self._context.set_tensor_address(self._input, taken.data_ptr())
        self._context.set_tensor_address(self._output, given.data_ptr())

    def _record(self) -> None:
        self._torch.cuda.current_stream().synchronize()
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            self._execute()
        self._graph = graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._torch.cuda.current_stream().cuda_stream):
            raise UserError("the engine could not be run; see TensorRT's message above")

    def _is_output(self, name: str) -> bool:
        return self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT

    def _output_dtype(self) -> torch.dtype:
        dtype = self._engine.get_tensor_dtype(self._output)
        return self._torch.uint8 if dtype == self._trt.DataType.UINT8 else self._torch.float32
