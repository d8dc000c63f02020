"""What the contract tests of several kinds share."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn


def flatten(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


@pytest.fixture
def onnx_outputs(tmp_path: Path) -> Callable[[nn.Module, tuple], list[np.ndarray]]:
    """Exports a module with example arguments and runs the file on the same arguments."""

    def export_and_run(module: nn.Module, arguments: tuple) -> list[np.ndarray]:
        path = tmp_path / "module.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations inside the exporter
            torch.onnx.export(module, arguments, path, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        values = [tensor.numpy() for argument in arguments for tensor in flatten(argument)]
        names = [entry.name for entry in session.get_inputs()]
        return session.run(None, dict(zip(names, values, strict=True)))

    return export_and_run
