"""INT8 by static quantisation: one file that ONNX Runtime, OpenVINO and TensorRT all read.

Weights per channel, activations per tensor, both symmetric, as Q/DQ pairs around convolutions and
matrix products; biases stay float. TensorRT takes nothing else. A sensitivity pass quantises every
layer alone, ranks them by the error this makes in the logits, and leaves float as many of the most
costly ones as it takes to change few enough pixels.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.errors import UserError
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.onnxruntime_file import SessionRunner, open_session
from t2sda.runtime.packages import require

from .deployable import INPUT_NAME
from .onnx import check_output, set_properties, write_verified
from .verify import (
    TOLERANCES,
    Tolerance,
    VerificationReport,
    as_layout,
    giving_logits,
    metadata_of_onnx,
    onnx_network,
    verify,
)

QUANTIZED_OPERATORS = ("Conv", "MatMul", "Gemm")
QDQ_OPTIONS = {
    "ActivationSymmetric": True,  # TensorRT knows no zero point; OpenVINO is slow with one
    "WeightSymmetric": True,
    "QuantizeBias": False,  # TensorRT refuses int32 biases
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
}
TARGET_CHANGED = 0.005
"""Share of other labels below which no further layer is left float."""
NUM_JUDGED = 2
"""Images that the sensitivity of every layer is taken on."""


@dataclass(frozen=True)
class LayerCost:
    """What quantising one layer alone does: mean squared error of the logits."""

    layer: str
    error: float


@dataclass(frozen=True)
class QuantizationReport:
    """What became int8.

    Attributes:
        num_layers: convolutions and matrix products of the network.
        kept_float: those that were left float, the most costly first.
        verification: against the file that it was made from, on images of the target domain.
    """

    num_layers: int
    kept_float: tuple[LayerCost, ...]
    verification: VerificationReport

    def __str__(self) -> str:
        kept = ", ".join(f"{cost.layer} ({cost.error:.1e})" for cost in self.kept_float) or "none"
        return (
            f"{self.num_layers - len(self.kept_float)} of {self.num_layers} layers in int8; left "
            f"float (with the squared error of logits they would cost): {kept}; "
            f"{self.verification}"
        )


def quantize_onnx(
    source: Path, output: Path, images: Sequence[np.ndarray], tolerance: Tolerance | None = None
) -> QuantizationReport:
    """Write an int8 file of a float32 one, unless it would disagree too much with it.

    Args:
        source: of `t2sda export onnx`, in float32.
        output: the file to write.
        images: of the target domain, (H, W, 3) uint8 RGB; the last third is kept from the
            calibration and verified on, where there are three or more.
        tolerance: by default that of int8.

    Raises:
        UserError: if the source is none of ours or not float32, nothing can be calibrated on, or
            too many labels change.
    """
    check_output(output, (".onnx",))
    onnx = require("onnx", "onnx")
    model_proto, metadata = _opened(source)
    batches = [framed_batch(image, metadata) for image in images]
    if not batches:
        raise UserError("no image to calibrate on; --calibration names a folder or a dataset")
    num_held_out = len(batches) // 3
    calibrating = batches[: len(batches) - num_held_out]
    judging = batches[-num_held_out:] if num_held_out else batches
    tolerance = tolerance or TOLERANCES["int8"]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        quantizer = _Quantizer(model_proto, source, metadata, calibrating, Path(folder))
        costs = quantizer.costs(judging[:NUM_JUDGED])
        kept = _left_float(quantizer, costs, judging[:NUM_JUDGED])
        quantized = quantizer.quantized(model_proto, without=[cost.layer for cost in kept])
    described = replace(
        metadata,
        precision="int8",
        versions={**metadata.versions, "onnxruntime": require("onnxruntime", "onnx").__version__},
    )
    onnx.checker.check_model(quantized)
    check_same_numbers(quantized, model_proto)
    set_properties(quantized, described)
    report = write_verified(
        quantized,
        output,
        lambda written: verify(
            onnx_network(written, described), onnx_network(source, metadata), judging, tolerance
        ),
    )
    return QuantizationReport(len(costs), tuple(kept), report)


class _Quantizer:
    """One calibration of a graph, and quantised graphs with any layers of it.

    Layers are called as in the checkpoint, or by their node; see `_layers`.
    """

    def __init__(
        self,
        model_proto: Any,
        source: Path,
        metadata: Metadata,
        batches: list[np.ndarray],
        folder: Path,
    ) -> None:
        self._onnx = require("onnx", "onnx")
        self._layout = metadata.layout
        self._judged = (
            model_proto
            if metadata.output_kind == "logits"
            else self._onnx.ModelProto.FromString(giving_logits(source, metadata.output_kind))
        )
        self._nodes = _layers(model_proto.graph)
        self._ranges = _calibrated(
            model_proto, [as_layout(batch, self._layout) for batch in batches], folder
        )

    def quantized(
        self, model_proto: Any, only: Sequence[str] = (), without: Sequence[str] = ()
    ) -> Any:
        """A copy of a graph with some of its layers in int8: `only` these, or all `without` some.

        `QDQQuantizer` is what `quantize_static` calls; that would calibrate anew every time.
        """
        quantization = require("onnxruntime.quantization", "onnx")
        qdq = require("onnxruntime.quantization.qdq_quantizer", "onnx")
        copied = self._onnx.ModelProto()
        copied.CopyFrom(model_proto)
        layers = only or [layer for layer in self._nodes if layer not in without]
        quantizer = qdq.QDQQuantizer(
            copied,
            per_channel=True,
            reduce_range=False,
            weight_qType=quantization.QuantType.QInt8,
            activation_qType=quantization.QuantType.QInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=[self._nodes[layer] for layer in layers],
            nodes_to_exclude=[],
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            extra_options=QDQ_OPTIONS,
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # it appends; ONNX wants what is used later below
        return quantizer.model.model

    def costs(self, batches: Sequence[np.ndarray]) -> list[LayerCost]:
        """Of every layer, the most costly first."""
        expected = self.maps(None, batches)
        found = []
        for layer in self._nodes:
            given = self.maps(self.quantized(self._judged, only=[layer]), batches)
            errors = [((a - b) ** 2).mean() for a, b in zip(given, expected, strict=True)]
            found.append(LayerCost(layer, float(np.mean(errors))))
        return sorted(found, key=lambda cost: -cost.error)

    def changed(self, without: Sequence[str], batches: Sequence[np.ndarray]) -> float:
        """Share of the pixels whose label changes with all layers but some in int8."""
        given = self.maps(self.quantized(self._judged, without=without), batches)
        expected = self.maps(None, batches)
        pairs = zip(given, expected, strict=True)
        return float(np.mean([(a.argmax(axis=1) != b.argmax(axis=1)).mean() for a, b in pairs]))

    def maps(self, model_proto: Any | None, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of a graph, by default of the one in float32."""
        content = (model_proto or self._judged).SerializeToString()
        run = SessionRunner(open_session(content, "cpu", name="the quantised network"))
        return [run(as_layout(batch, self._layout)) for batch in batches]


def _layers(graph: Any) -> dict[str, str]:
    """Node by layer: called as in the checkpoint, by the weight or by the bias that is added.

    The exporter turns the weights of linear layers round and calls the result by a number.
    """
    own = {tensor.name for tensor in graph.initializer if tensor.name.startswith("model.")}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    layers: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in QUANTIZED_OPERATORS:
            continue
        added = [user for user in users.get(node.output[0], ()) if user.op_type == "Add"]
        names = [name for item in (node, *added) for name in item.input if name in own]
        layer = names[0].removesuffix(".weight").removesuffix(".bias") if names else node.name
        layers[node.name if layer in layers else layer] = node.name
    return layers


def _left_float(
    quantizer: _Quantizer, costs: list[LayerCost], batches: Sequence[np.ndarray]
) -> list[LayerCost]:
    """The fewest of 0, 1, 2, 4, … most costly layers, up to half of them, that are enough."""
    count = 0
    while True:
        kept = costs[:count]
        enough = quantizer.changed([cost.layer for cost in kept], batches) <= TARGET_CHANGED
        if enough or count * 2 > len(costs) // 2:
            return kept
        count = max(count * 2, 1)


def check_same_numbers(quantized: Any, source: Any) -> None:
    """Raise UserError unless every weight, bias and mean is still that of the float32 graph.

    Q/DQ pairs round when the file runs; what they round is stored in float32. Whatever rounding
    hides in the logits, such as one weight of another sign, is seen here.
    """
    kept = {tensor.name: tensor.raw_data for tensor in quantized.graph.initializer}
    for tensor in source.graph.initializer:
        if tensor.raw_data != kept.get(tensor.name, tensor.raw_data):
            raise UserError(
                f"quantising changed the numbers of '{tensor.name}', and the file is not kept; "
                f"this is a fault of the quantiser or of the file that it was given"
            )
    lost = [tensor.name for tensor in source.graph.initializer if tensor.name not in kept]
    if lost:
        raise UserError(f"quantising lost the numbers of '{lost[0]}'; the file is not kept")


def _opened(source: Path) -> tuple[Any, Metadata]:
    onnx = require("onnx", "onnx")
    require("onnxruntime", "onnx")
    metadata = metadata_of_onnx(source)
    if metadata.precision != "fp32":
        raise UserError(
            f"{source}: is in {metadata.precision}; int8 is made from a float32 file "
            f"(`t2sda export onnx` without --precision)"
        )
    return onnx.load(source), metadata


def framed_batch(image: np.ndarray, metadata: Metadata) -> np.ndarray:
    """(1, H, W, 3), framed as the runtime would; of a graph that slides the first window."""
    framed = metadata.letterbox(image).image
    if metadata.window_step is not None:
        assert metadata.image_size is not None
        height, width = metadata.image_size
        framed = np.ascontiguousarray(framed[:height, :width])
    return framed[None]


def _calibrated(model_proto: Any, batches: list[np.ndarray], folder: Path) -> Any:
    """Smallest and largest value of every activation."""
    calibrate = require("onnxruntime.quantization.calibrate", "onnx")
    source = folder / "source.onnx"
    source.write_bytes(model_proto.SerializeToString())
    calibrator = calibrate.create_calibrator(
        source,
        list(QUANTIZED_OPERATORS),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=calibrate.CalibrationMethod.MinMax,
        extra_options={"symmetric": True},
    )
    # One by one: the calibrator stacks the results of a call, and images may differ in size.
    for batch in batches:
        calibrator.collect_data(_Reader(batch))
    return calibrator.compute_data()


class _Reader:
    """One batch, as a CalibrationDataReader gives it."""

    def __init__(self, batch: np.ndarray) -> None:
        self._rest: Iterator[dict[str, np.ndarray]] = iter([{INPUT_NAME: batch}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The batch, then None."""
        return next(self._rest, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice to run a pre-processing that our files have had."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
