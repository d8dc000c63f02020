"""TensorRT and TensorRT-RTX engines from exported ONNX files.

Precision lives in the ONNX file: networks are strongly typed and no precision flag is ever set, so
that one code path serves TensorRT 10.13 and later, 11, and TensorRT-RTX. What was built is read
back, and an engine in another precision than the asked one is refused.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from t2sda.errors import UserError
from t2sda.files import atomic_writer, make_writable_dir
from t2sda.runtime.onnx_content import check_external_data
from t2sda.runtime.tensorrt_file import import_tensorrt

WITHOUT_GPU = "8.0"
"""Compute capability that TensorRT-RTX builds for where there is no GPU to ask."""
_PRECISION_OF_TYPE = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}
_PRECISION_IN_ENGINE = {"Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16"}
_PRECISION_IN_ENGINE |= {"BFloat16": "bf16", "BF16": "bf16", "Int8": "int8", "INT8": "int8"}
_COMPUTING = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")

Shape = tuple[int, int, int]


class Profile(NamedTuple):
    """Batches (B, H, W) that an engine of a dynamic file takes, and is fastest at."""

    smallest: Shape
    usual: Shape
    largest: Shape


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is built.

    Attributes:
        target: "tensorrt" or "tensorrt-rtx"; engines of one do not load in the other.
        precision: "fp32", "fp16" or "int8" that the engine must be in; None: that of the file.
        profile: of a dynamic file; a file of one size has none.
        timing_cache: a file that spares measuring kernels again; made if it is not there.
        version_compatible: runs in later versions of TensorRT too; not of TensorRT-RTX.
        hardware_compatible: runs on every GPU from Ampere on, not only on this one's kind.
        compute_capabilities: of TensorRT-RTX, the GPUs to build for ("8.6"); none: this machine's.
    """

    target: str = "tensorrt"
    precision: str | None = None
    profile: Profile | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()


class Layer(NamedTuple):
    """A layer of a network or engine."""

    name: str
    kind: str
    precision: str


@dataclass(frozen=True)
class BuiltEngine:
    """An engine and what is in it.

    Attributes:
        content: the serialised engine.
        layers: of the engine where this machine can read it back, else of the network that was
            parsed.
        inspected: whether `layers` is what was built.
        precision: of the layers that compute.
        version: of TensorRT.
    """

    content: bytes
    layers: tuple[Layer, ...]
    inspected: bool
    precision: str
    version: str


def build_engine(onnx_path: Path, settings: EngineSettings) -> BuiltEngine:
    """Parse an ONNX file and build its engine.

    TensorRT-RTX builds without a GPU; TensorRT builds for the GPU that is there.

    Raises:
        UserError: with the parser's or builder's own words, if the file cannot become an engine, a
            setting does not fit the target or the file, or the engine is in another precision.
    """
    trt = import_tensorrt(settings.target)
    _check_settings(settings)
    check_external_data(onnx_path)
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx_path)):
        problems = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise UserError(f"{onnx_path}: {settings.target} cannot parse it: {problems}")
    if network.num_inputs != 1 or network.num_outputs != 1:  # of bytes that are no graph: none
        raise UserError(
            f"{onnx_path}: {settings.target} finds {network.num_inputs} inputs and "
            f"{network.num_outputs} outputs in it; a graph that segments images has one of each"
        )
    layers = network_layers(network)
    precision = precision_of(layers)
    _check_precision(precision, settings, onnx_path)
    config = _config(trt, builder, network, settings, onnx_path)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(
            f"{onnx_path}: {settings.target} parsed it, but could not build an engine: "
            f"{log.last_error or 'it gave no reason'}"
        )
    _keep_timing_cache(config, settings)
    content = bytes(engine)
    inspected = _inspected(trt, log, content)
    if inspected:
        _check_engine(inspected, precision, settings, onnx_path)
    return BuiltEngine(content, inspected or layers, bool(inspected), precision, trt.__version__)


def network_layers(network: Any) -> tuple[Layer, ...]:
    """Of a parsed network; behind a DequantizeLinear counts as int8, as that is what runs."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantized = {layer.get_output(0).name for layer in layers if layer.type.name == "DEQUANTIZE"}
    rows = []
    for layer in layers:
        taken = layer.get_input(0) or layer.get_output(0)
        precision = _PRECISION_OF_TYPE.get(taken.dtype.name, taken.dtype.name.lower())
        if layer.type.name in _COMPUTING and taken.name in dequantized:
            precision = "int8"
        rows.append(Layer(layer.name, layer.type.name, precision))
    return tuple(rows)


def precision_of(layers: Sequence[Layer]) -> str:
    """What the layers that compute are in: int8 if any is, else what most of them are in."""
    counts = Counter(layer.precision for layer in layers if layer.kind in _COMPUTING)
    if not counts:
        return "fp32"
    return "int8" if counts["int8"] else counts.most_common(1)[0][0]


def _check_settings(settings: EngineSettings) -> None:
    if settings.target == "tensorrt-rtx" and settings.timing_cache:
        raise UserError("--timing-cache: TensorRT-RTX has none; it chooses kernels where it runs")
    if settings.target == "tensorrt-rtx" and settings.version_compatible:
        raise UserError("--version-compatible: TensorRT-RTX lacks the lean runtime that this needs")
    if settings.timing_cache:
        make_writable_dir(settings.timing_cache.parent, "--timing-cache")
    if settings.target == "tensorrt" and settings.compute_capabilities:
        raise UserError(
            "--compute-capability: TensorRT builds for the GPU that is there; "
            "--hardware-compatible for all from Ampere on"
        )
    if settings.target == "tensorrt" and not torch.cuda.is_available():
        raise UserError(
            "TensorRT builds on the GPU that the engine is for, and there is none here; "
            "--target tensorrt-rtx builds without one"
        )


def _check_precision(found: str, settings: EngineSettings, onnx_path: Path) -> None:
    if settings.precision not in (None, found):
        raise UserError(
            f"{onnx_path}: its layers compute in {found}, not in {settings.precision}; precision "
            f"lives in the ONNX file: `t2sda export onnx --precision {settings.precision}`"
        )


def _check_engine(
    layers: Sequence[Layer], precision: str, settings: EngineSettings, onnx_path: Path
) -> None:
    if precision not in {layer.precision for layer in layers}:
        raise UserError(
            f"{onnx_path}: {precision} was asked for, but no layer of the engine that "
            f"{settings.target} built is in it; the engine is not kept"
        )


def _config(trt: Any, builder: Any, network: Any, settings: EngineSettings, onnx_path: Path) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings.target == "tensorrt-rtx":
        _set_capabilities(trt, config, settings.compute_capabilities)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.timing_cache:
        path = settings.timing_cache
        known = path.read_bytes() if path.is_file() else b""
        if not config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
            raise UserError(f"--timing-cache {path}: of another GPU or version; name a new file")
    _set_profile(builder, config, network, settings.profile, onnx_path)
    return config


def _set_capabilities(trt: Any, config: Any, asked: Sequence[str]) -> None:
    wanted = list(asked) or ([] if torch.cuda.is_available() else [WITHOUT_GPU])
    known = {name for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    for capability in wanted:
        if f"SM{capability.replace('.', '')}" not in known:
            listed = ", ".join(sorted(f"{name[2:-1]}.{name[-1]}" for name in known))
            raise UserError(f"--compute-capability {capability}: unknown; one of {listed}")
    config.num_compute_capabilities = max(len(wanted), 1)
    names = [f"SM{capability.replace('.', '')}" for capability in wanted] or ["CURRENT"]
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)


def _set_profile(
    builder: Any, config: Any, network: Any, profile: Profile | None, onnx_path: Path
) -> None:
    images = network.get_input(0)
    dynamic = -1 in tuple(images.shape)
    if not dynamic and profile is None:
        return
    if not dynamic or profile is None:
        what = "takes any size" if dynamic else f"takes {tuple(images.shape)} only"
        advice = "say --profile BxHxW BxHxW BxHxW" if dynamic else "leave out --profile"
        raise UserError(f"{onnx_path}: {what}; {advice} (smallest, usual, largest batch)")
    channels_first = images.shape[1] == 3
    shapes = [
        (batch, 3, height, width) if channels_first else (batch, height, width, 3)
        for batch, height, width in profile
    ]
    if not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
        raise UserError(
            f"--profile {' '.join('x'.join(map(str, shape)) for shape in profile)}: every side of "
            f"the smallest must be at most that of the usual, and that at most the largest's"
        )
    described = builder.create_optimization_profile()
    described.set_shape(images.name, *shapes)
    config.add_optimization_profile(described)


def _keep_timing_cache(config: Any, settings: EngineSettings) -> None:
    if settings.timing_cache:
        try:
            with atomic_writer(settings.timing_cache) as partial:
                partial.write_bytes(bytes(config.get_timing_cache().serialize()))
        except OSError as error:
            raise UserError(
                f"--timing-cache {settings.timing_cache}: cannot be written ({error.strerror})"
            ) from None


def _inspected(trt: Any, log: Any, content: bytes) -> tuple[Layer, ...]:
    """The engine's layers in its own words; empty where no GPU can load it."""
    if not torch.cuda.is_available():
        return ()
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        return ()
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_of_inspector(text)


def layers_of_inspector(text: str) -> tuple[Layer, ...]:
    """Layers of an inspector's JSON: precision is that of the first input."""
    rows = []
    for layer in json.loads(text).get("Layers", ()):
        if isinstance(layer, str):  # built without detailed verbosity
            rows.append(Layer(layer, "", ""))
            continue
        inputs = layer.get("Inputs") or [{}]
        words = re.findall(r"\w+", str(inputs[0].get("Format/Datatype", "")))
        found = (_PRECISION_IN_ENGINE[word] for word in words if word in _PRECISION_IN_ENGINE)
        rows.append(Layer(layer.get("Name", ""), layer.get("LayerType", ""), next(found, "")))
    return tuple(rows)


def _logger(trt: Any) -> Any:
    """Collects errors for our messages instead of printing them."""

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.last_error = " ".join(message.split())[:600]

    return Collector()
