"""INT8 files: what is in them, that three runtimes take them, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from t2sda import load_model
from t2sda.errors import UserError
from t2sda.export.quantization import QuantizationReport, check_same_numbers, quantize_onnx
from t2sda.export.tensorrt import EngineSettings, build_engine
from t2sda.export.verify import (
    TOLERANCES,
    Tolerance,
    metadata_of_onnx,
    onnx_network,
    verify,
)
from t2sda.runtime.predictor import FilePredictor
from tests.deployed import IMAGE_SIZE, STATIC, STATIC_PROBABILITIES, shared_export, street

IMAGES = [street(IMAGE_SIZE, index) for index in range(3)]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, QuantizationReport]:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    source = shared_export(tmp_path_factory, STATIC)
    return path, quantize_onnx(source, path, IMAGES, Tolerance(0.5, 0.05))


def test_weights_are_symmetric_per_channel_and_biases_float(
    quantized: tuple[Path, QuantizationReport],
) -> None:
    graph = onnx.load(quantized[0]).graph
    values = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    quantized_weights = [producers[n.input[1]] for n in convolutions if n.input[1] in producers]
    assert quantized_weights
    for dequantize in quantized_weights:
        quantize = producers[dequantize.input[0]]
        weight, scale, zero = (values[name] for name in quantize.input)
        assert (dequantize.op_type, quantize.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert zero.dtype == np.int8
        assert not zero.any()
        assert scale.shape == zero.shape == (weight.shape[0],)
    biases = [name for node in convolutions for name in node.input[2:]]
    assert all(values[name].dtype == np.float32 for name in biases)


def test_layers_that_cost_much_stay_float_and_are_named(
    quantized: tuple[Path, QuantizationReport],
) -> None:
    path, report = quantized
    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    layers = kinds["Conv"] + kinds["MatMul"] + kinds["Gemm"]
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    in_int8 = [
        node
        for node in graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in dequantized
    ]
    assert report.num_layers == layers
    assert len(in_int8) == layers - len(report.kept_float)
    errors = [cost.error for cost in report.kept_float]
    assert errors == sorted(errors, reverse=True)
    assert all(cost.layer.startswith("model.") for cost in report.kept_float)


def test_all_three_runtimes_take_the_file(quantized: tuple[Path, QuantizationReport]) -> None:
    path, report = quantized
    labels = [load_model(path, runtime).predict(IMAGES[2]) for runtime in (None, "openvino")]
    assert (labels[0] != labels[1]).mean() <= 0.02  # rounding at the edge of a step
    assert report.verification.passed
    assert build_engine(path, EngineSettings("tensorrt-rtx", precision="int8")).content


def test_the_file_says_that_it_is_int8(quantized: tuple[Path, QuantizationReport]) -> None:
    model = load_model(quantized[0])
    assert isinstance(model, FilePredictor)
    assert model.metadata.precision == "int8"
    assert "onnxruntime" in model.metadata.versions


def test_a_file_that_changes_too_much_is_not_kept(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = shared_export(tmp_path_factory, STATIC)
    with pytest.raises(UserError, match=r"disagrees with its source.*allowed are 0 of the largest"):
        quantize_onnx(source, tmp_path / "int8.onnx", IMAGES[:1], Tolerance(0.0, 0.0))
    assert not list(tmp_path.iterdir())


def shifted_mean(model: Any) -> None:
    (mean,) = (item for item in model.graph.initializer if item.name == "model.pixel_mean")
    values = onnx.numpy_helper.to_array(mean) + np.float32(8)
    mean.CopyFrom(onnx.numpy_helper.from_array(values, mean.name))


def negated_weight(place: int) -> Callable[[Any], None]:
    def negate(model: Any) -> None:
        name = "model.head.classifier.weight"
        (weight,) = (item for item in model.graph.initializer if item.name == name)
        values = onnx.numpy_helper.to_array(weight).copy()
        values.reshape(-1)[np.argsort(-np.abs(values), axis=None)[place]] *= -1
        weight.CopyFrom(onnx.numpy_helper.from_array(values, name))

    return negate


@pytest.mark.parametrize(
    ("change", "in_the_logits"),
    [
        (shifted_mean, True),
        (negated_weight(0), True),
        (negated_weight(100), True),
        (negated_weight(20), False),  # smaller than what rounding does
    ],
)
def test_the_bound_sees_a_shifted_mean_and_a_negated_weight(
    quantized: tuple[Path, QuantizationReport],
    change: Callable[[Any], None],
    in_the_logits: bool,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    source = shared_export(tmp_path_factory, STATIC)
    model, metadata = onnx.load(quantized[0]), metadata_of_onnx(quantized[0])
    check_same_numbers(model, onnx.load(source))
    batches = [image[None] for image in IMAGES]
    expected = onnx_network(source, metadata)
    tolerance = TOLERANCES["int8"]._replace(changed=0.2)  # its labels tie more than trained ones
    report = verify(onnx_network(quantized[0], metadata), expected, batches, tolerance)
    assert report.spread is not None
    assert tolerance.spread is not None
    assert report.spread < tolerance.spread / 2
    change(model)
    with pytest.raises(UserError, match="quantising changed the numbers of 'model"):
        check_same_numbers(model, onnx.load(source))
    onnx.save(model, tmp_path / "m.onnx")
    if in_the_logits:
        with pytest.raises(UserError, match="in the worst class by .* of their spread"):
            verify(onnx_network(tmp_path / "m.onnx", metadata), expected, batches, tolerance)


def test_what_cannot_be_quantised(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    quantized: tuple[Path, QuantizationReport],
) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    for source, images, message in (
        (tmp_path / "text.onnx", IMAGES, r"text\.onnx: not an ONNX file"),
        (quantized[0], IMAGES, r"is in int8; int8 is made from a float32 file"),
        (shared_export(tmp_path_factory, STATIC), [], "no image to calibrate on"),
    ):
        with pytest.raises(UserError, match=message):
            quantize_onnx(source, tmp_path / "out.onnx", images)
    assert [path.name for path in tmp_path.iterdir()] == ["text.onnx"]


def test_images_that_are_verified_on_are_not_calibrated_on(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared_export(tmp_path_factory, STATIC)
    calibrated: list[np.ndarray] = []

    def stop(model_proto: object, batches: list[np.ndarray], folder: Path) -> None:
        calibrated.extend(batches)
        raise UserError("enough")

    monkeypatch.setattr("t2sda.export.quantization._calibrated", stop)
    with pytest.raises(UserError, match="enough"):
        quantize_onnx(source, tmp_path / "int8.onnx", IMAGES)
    assert np.array_equal(np.concatenate(calibrated), np.stack(IMAGES[:2]))


def test_probabilities_are_judged_by_their_logits(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    quantized: tuple[Path, QuantizationReport],
) -> None:
    source = shared_export(tmp_path_factory, STATIC_PROBABILITIES)
    path = tmp_path / "int8.onnx"
    report = quantize_onnx(source, path, IMAGES, Tolerance(0.5, 0.05))
    of_labels = quantized[1]
    assert report.kept_float == pytest.approx(of_labels.kept_float)
    assert report.verification.max_logit == pytest.approx(of_labels.verification.max_logit)
    image = street(IMAGE_SIZE)
    assert load_model(path).probabilities(image).sum(axis=0) == pytest.approx(1, abs=1e-3)
