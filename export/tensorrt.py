"""TensorRT and TensorRT-RTX engines from exported ONNX files.

Precision lives in the ONNX file: networks are strongly typed and no precision flag is ever set, so
that one code path serves TensorRT 10.13 and later, 11, and TensorRT-RTX.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from t2sda.errors import UserError

from .packages import require

EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "trt-rtx"}


def import_tensorrt(flavour: str) -> ModuleType:
    """TensorRT ("tensorrt") or TensorRT-RTX ("tensorrt_rtx"); UserError where it is missing."""
    return require(flavour, EXTRAS[flavour])


def build_engine(onnx_path: Path, flavour: str = "tensorrt") -> bytes:
    """Parse an ONNX file of static shape and build its engine.

    TensorRT-RTX builds without a GPU, for compute capability 8.0; TensorRT builds for the GPU that
    is there.

    Args:
        onnx_path: written by `export_onnx` with a fixed size.
        flavour: "tensorrt" or "tensorrt_rtx".
    Returns:
        The serialised engine.
    Raises:
        UserError: with the parser's own words, if the file cannot become an engine.
    """
    trt = import_tensorrt(flavour)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        problems = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise UserError(f"{onnx_path}: {flavour} cannot parse it: {problems}")
    config = builder.create_builder_config()
    if flavour == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM80, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(f"{onnx_path}: {flavour} parsed it, but could not build an engine")
    return bytes(engine)


class EngineRunner:
    """Runs an engine of one input and one output on the current GPU.

    Args:
        engine: of `build_engine`.
        flavour: what built it.
    Raises:
        UserError: if the engine does not load on this GPU.
    """

    def __init__(self, engine: bytes, flavour: str = "tensorrt") -> None:
        self._trt = import_tensorrt(flavour)
        runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        self._engine: Any = runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise UserError("the engine does not load on this GPU; build it on the GPU it runs on")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.input_name, self.output_name = sorted(names, key=self._is_output)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(1, H, W, 3) uint8 on the GPU -> the engine's output, on the GPU."""
        images = images.contiguous()
        shape = tuple(self._engine.get_tensor_shape(self.output_name))
        output = torch.empty(shape, dtype=self._output_dtype(), device=images.device)
        self._context.set_tensor_address(self.input_name, images.data_ptr())
        self._context.set_tensor_address(self.output_name, output.data_ptr())
        stream = torch.cuda.current_stream()
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise UserError("the engine could not be run; see TensorRT's message above")
        stream.synchronize()
        return output

    def _is_output(self, name: str) -> bool:
        return self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT

    def _output_dtype(self) -> torch.dtype:
        dtype = self._engine.get_tensor_dtype(self.output_name)
        return torch.uint8 if dtype == self._trt.DataType.UINT8 else torch.float32
