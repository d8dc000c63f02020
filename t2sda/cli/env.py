"""`t2sda env`: what works on this machine, found out by using it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

import t2sda
from t2sda.cli.common import ArgumentParser, load_components
from t2sda.data.catalog import DATASETS, DATASETS_VARIABLE, dataset_folders
from t2sda.engine.metrics import standard_console
from t2sda.errors import UserError
from t2sda.runtime.openvino_file import open_core

PACKAGES = (
    *("torch", "torchvision", "timm", "fvcore", "iopath", "numpy", "opencv-python-headless"),
    *("pillow", "av", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-cu13", "tensorrt-rtx-cu12"),
)


_MISSING = "not installed"


class Finding(NamedTuple):
    """One thing that was tried."""

    what: str
    works: bool
    detail: str


def command(argv: Sequence[str]) -> int:
    """Print versions, devices, runtimes that ran a model, and datasets that were found."""
    build_parser().parse_args(argv)
    load_components([])
    console = standard_console()
    versions = Table(title="versions", title_justify="left", show_header=False)
    for name, version in _versions():
        versions.add_row(name, version)
    console.print(versions)
    for title, findings in (
        ("devices", [_cpu(), _cuda()]),
        ("runtimes (each ran a one-node model)", _runtimes()),
        (f"datasets (below {DATASETS_VARIABLE} and the working directory)", _datasets()),
    ):
        table = Table(title=title, title_justify="left", show_header=False)
        for finding in findings:
            table.add_row(finding.what, "works" if finding.works else "-", finding.detail)
        console.print(table)
    return 0


def build_parser() -> ArgumentParser:
    """It has no options."""
    return ArgumentParser(
        prog="t2sda env", description="Print what works on this machine, found out by using it."
    )


def findings() -> list[Finding]:
    """Versions, devices and runtimes in one list, for a report."""
    versions = [Finding(name, version != _MISSING, version) for name, version in _versions()]
    return [*versions, _cpu(), _cuda(), *_runtimes()]


def _versions() -> list[tuple[str, str]]:
    found = [("t2sda", t2sda.__version__), ("Python", platform.python_version())]
    for package in PACKAGES:
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            found.append((package, _MISSING))
    return found


def _cpu() -> Finding:
    capability = torch.backends.cpu.get_cpu_capability()
    return Finding("CPU", True, f"{torch.get_num_threads()} threads, {capability}")


def _cuda() -> Finding:
    if not torch.cuda.is_available():
        built = f"built with CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        return Finding("CUDA", False, f"no usable GPU; torch is {built}")

    def multiply() -> str:
        torch.ones(8, 8, device="cuda").mm(torch.ones(8, 8, device="cuda")).sum().item()
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return f"{torch.cuda.device_count()} x {', '.join(sorted(names))}"

    return _tried("CUDA", multiply)


def _runtimes() -> list[Finding]:
    return [
        *_onnxruntime(),
        _tried("OpenVINO", _run_openvino),
        _tried("TensorRT", lambda: _start_tensorrt("tensorrt")),
        _tried("TensorRT-RTX", lambda: _start_tensorrt("tensorrt_rtx")),
    ]


def _onnxruntime() -> list[Finding]:
    try:
        runtime = importlib.import_module("onnxruntime")
        providers = [p for p in runtime.get_available_providers() if "Azure" not in p]
    except ImportError as error:
        return [Finding("ONNX Runtime", False, _reason(error))]
    return [
        _tried(f"ONNX Runtime {provider}", lambda p=provider: _run_onnxruntime(p))  # type: ignore[misc]
        for provider in providers
    ]


def _run_onnxruntime(provider: str) -> str:
    """Run on `provider`; listing it proves nothing, as sessions fall back to the CPU silently."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(_one_node_model(), options, providers=[provider])
    used = session.get_providers()[0]
    if used != provider:
        raise RuntimeError(f"the session fell back to {used}")
    session.run(None, {"x": np.ones(1, dtype=np.float32)})
    return f"onnxruntime {runtime.__version__}"


def _run_openvino() -> str:
    openvino = importlib.import_module("openvino")
    core = open_core()
    compiled = core.compile_model(core.read_model(_one_node_model()), "CPU")
    compiled([np.ones(1, dtype=np.float32)])
    return f"openvino {openvino.__version__}, devices {', '.join(core.available_devices)}"


def _start_tensorrt(module: str) -> str:
    tensorrt = importlib.import_module(module)
    tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"{tensorrt.__version__} can parse and build, but there is no GPU to run"
        )
    return f"{module} {tensorrt.__version__}"


def _one_node_model() -> bytes:
    """An ONNX file that copies one number."""
    onnx = importlib.import_module("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "one_node",
        [helper.make_tensor_value_info("x", float32, [1])],
        [helper.make_tensor_value_info("y", float32, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def _datasets() -> list[Finding]:
    folders = ", ".join(str(folder.resolve()) for folder in dataset_folders())
    listed = os.environ.get(DATASETS_VARIABLE)
    rows = [Finding(DATASETS_VARIABLE, bool(listed), listed or f"not set; looking below {folders}")]
    lacking: dict[str, list[str]] = {}
    for spec in (DATASETS.get(name) for name in DATASETS.names()):
        try:
            rows.append(Finding(spec.name, True, f"{len(spec.open())} images"))
        except UserError:
            lacking.setdefault(spec.location, []).append(spec.name)
    more = [
        Finding(_in_short(names), False, f"not found; looked for {location}")
        for location, names in sorted(lacking.items())
    ]
    return [*rows, *more]


def _in_short(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _tried(what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, attempt())
    except Exception as error:  # whatever a broken installation raises is the finding
        return Finding(what, False, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name})"
    return (str(error).splitlines() or [type(error).__name__])[0]
