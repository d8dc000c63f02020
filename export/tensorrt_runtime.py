"""Engines on the current GPU.

An engine has no room for our metadata; it lies beside it as `NAME.engine.json`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from t2sda.errors import MissingFileError, UserError

from .deployable import OutputKind
from .loaded import FileModel
from .metadata import Metadata
from .tensorrt import TARGETS, import_tensorrt

ENGINE_SUFFIXES = (".engine", ".plan")
TARGET_KEY = "target"
PROFILE_KEY = "profile"
"""What the sidecar says besides our metadata; the profile is null for an engine of one size."""


def sidecar_of(engine: Path) -> Path:
    """Where the metadata of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def load_engine(path: Path, device: str) -> FileModel:
    """An engine of `t2sda export tensorrt` on this GPU.

    Args:
        path: with its `.json` beside it.
        device: "cuda" or "auto".

    Raises:
        UserError: if there is no GPU to run it on.
    """
    described = read_sidecar(path)
    built_for = described[TARGET_KEY]
    if device == "cpu" or not torch.cuda.is_available():
        found = "none is usable here" if device != "cpu" else "device cpu was asked for"
        raise UserError(f"{path}: engines run on an NVIDIA GPU (device cuda), and {found}")
    metadata = Metadata.from_properties(described, path)
    runner = EngineRunner(path.read_bytes(), built_for)
    return FileModel(
        path, runner, metadata, runtime=built_for, max_batch_size=runner.max_batch_size
    )


def read_sidecar(engine: Path) -> dict[str, Any]:
    """The metadata beside an engine; UserError if it is missing or none of ours."""
    sidecar = sidecar_of(engine)
    if not sidecar.is_file():
        raise MissingFileError(
            f"{engine}: {sidecar.name}, which says what it is, is not beside it; "
            f"`t2sda export tensorrt` writes both"
        )
    try:
        described = json.loads(sidecar.read_text(encoding="utf-8"))
        if described[TARGET_KEY] in TARGETS and PROFILE_KEY in described:
            return described
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{sidecar}: damaged; export the engine again")


def sidecar_text(metadata: Metadata, target: str, extra: Mapping[str, object]) -> str:
    """What lies beside an engine."""
    return json.dumps({TARGET_KEY: target, **extra, **metadata.to_properties()}, indent=1) + "\n"


class EngineRunner:
    """Runs an engine of one input and one output on the current GPU, one call after the other.

    An engine of one shape is recorded once as a CUDA graph and replayed: hundreds of small kernels
    then start without the CPU.

    Args:
        engine: serialised.
        target: what it was built for.
    Raises:
        UserError: if the engine does not load on this GPU.
    """

    def __init__(self, engine: bytes, target: str) -> None:
        self._trt = import_tensorrt(target)
        runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        self._engine: Any = runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise UserError("the engine does not load on this GPU; build it on the GPU it runs on")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._input, self._output = sorted(names, key=self._is_output)
        self._static = -1 not in tuple(self._engine.get_tensor_shape(self._input))
        self._lock = threading.Lock()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def max_batch_size(self) -> int:
        """Most pictures at once."""
        if self._static:
            return int(self._engine.get_tensor_shape(self._input)[0])
        return int(self._engine.get_tensor_profile_shape(self._input, 0)[2][0])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The output for a batch, (B, H, W, 3) or as the graph takes it."""
        with self._lock:
            return self._run(torch.from_numpy(np.ascontiguousarray(images))).cpu().numpy()

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        if not self._context.set_input_shape(self._input, tuple(images.shape)):
            raise UserError(f"the engine was not built for pictures of shape {tuple(images.shape)}")
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
        torch.cuda.current_stream().synchronize()
        return given

    def _allocate(self, images: torch.Tensor) -> None:
        shape = tuple(self._context.get_tensor_shape(self._output))
        taken = torch.empty_like(images, device="cuda")
        given = torch.empty(shape, dtype=self._output_dtype(), device="cuda")
        self._buffers = (taken, given)
        self._context.set_tensor_address(self._input, taken.data_ptr())
        self._context.set_tensor_address(self._output, given.data_ptr())

    def _record(self) -> None:
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._execute()
        self._graph = graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise UserError("the engine could not be run; see TensorRT's message above")

    def _is_output(self, name: str) -> bool:
        return self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT

    def _output_dtype(self) -> torch.dtype:
        dtype = self._engine.get_tensor_dtype(self._output)
        return torch.uint8 if dtype == self._trt.DataType.UINT8 else torch.float32


class EngineNetwork:
    """An engine, to be compared with its source; its labels cannot be looked behind."""

    def __init__(self, content: bytes, target: str, metadata: Metadata) -> None:
        self._run = EngineRunner(content, target)
        self._layout = metadata.layout
        self.output_kind: OutputKind = metadata.output_kind

    def maps(self, images: np.ndarray) -> np.ndarray | None:
        """(B, C, H, W), or None of an engine of labels."""
        return None if self.output_kind == "labels" else self._output(images)

    def labels(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W) train ids."""
        output = self._output(images)
        return output if self.output_kind == "labels" else output.argmax(axis=1)

    def _output(self, images: np.ndarray) -> np.ndarray:
        return self._run(images if self._layout == "nhwc" else images.transpose(0, 3, 1, 2))
