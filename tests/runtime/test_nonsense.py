"""NaN and what is no class never become labels: of our own files as of others'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.errors import UserError
from t2sda.export.openvino import export_openvino
from t2sda.runtime.description import Description
from t2sda.runtime.openvino_file import seal_ir
from tests.deployed import street
from tests.tiny_onnx import SIZE, WEIGHTS, tiny_model, write_tiny

RUNTIMES = ("onnxruntime", "openvino")
SAID = Description("cityscapes_19", pixel_mean=(1.0,) * 3, pixel_std=(2.0,) * 3)


def damaged_weights(value: float) -> np.ndarray:
    weights = WEIGHTS.copy()
    weights[3, 1] = value
    return weights


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_weights_of_our_own_files(kind: Any, value: float, runtime: str, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx", tiny_model(kind, weights=damaged_weights(value)))
    with pytest.raises(UserError, match=r"m\.onnx: the weights 'weights' hold NaN or infinite"):
        load_model(path, runtime)


@pytest.mark.parametrize("number", [np.float16, np.float32])
def test_weights_of_others(number: type, tmp_path: Path) -> None:
    path = foreign(tmp_path / "m.onnx", damaged_weights(float("nan")).astype(number))
    with pytest.raises(UserError, match=r"the weights 'weights' hold NaN or infinite values"):
        load_model(path, description=SAID)


def test_weights_of_an_ir(tmp_path: Path) -> None:
    xml = tmp_path / "m.xml"
    export_openvino(write_tiny(tmp_path / "m.onnx"), xml, precision="fp32")
    weights = xml.with_suffix(".bin")
    place = weights.read_bytes().index(WEIGHTS.tobytes()[:16])
    content = bytearray(weights.read_bytes())
    content[place : place + 4] = np.float32("nan").tobytes()
    weights.write_bytes(content)
    seal_ir(xml)
    with pytest.raises(UserError, match=r"m\.xml: the weights '.*' hold NaN or infinite values"):
        load_model(xml)


def foreign(path: Path, weights: np.ndarray, *more: Any, output: Any = None) -> Path:
    """Floats (B, 3, H, W) -> whatever the nodes make of a convolution's scores."""
    info = helper.make_tensor_value_info
    kind = helper.np_dtype_to_tensor_dtype(weights.dtype)
    output = output or info("scores", kind, ["b", len(weights), "h", "w"])
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["own"], to=kind),
            helper.make_node("Conv", ["own", "weights"], ["scores"]),
            *more,
        ],
        "other",
        [info("pixels", TensorProto.FLOAT, ["b", 3, "h", "w"])],
        [output],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("operator", ["Log", "Sqrt"])  # of negative scores
def test_logits_that_are_no_numbers(operator: str, runtime: str, tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    path = foreign(
        tmp_path / "m.onnx",
        WEIGHTS,
        helper.make_node(operator, ["scores"], ["out"]),
        output=info("out", TensorProto.FLOAT, ["b", 19, "h", "w"]),
    )
    model = load_model(path, runtime, description=SAID)
    for ask in (model.predict, model.logits, model.probabilities):
        with pytest.raises(UserError, match="gives logits that are no finite numbers"):
            ask(street(SIZE))


def test_logits_too_large_for_their_precision(tmp_path: Path) -> None:
    path = foreign(tmp_path / "m.onnx", (WEIGHTS * 60_000).clip(-65_000, 65_000).astype(np.float16))
    with pytest.raises(UserError, match="gives logits that are no finite numbers"):
        load_model(path, description=SAID).predict(street(SIZE))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("shift", [19, 256, -300])
def test_labels_that_are_no_class(shift: int, runtime: str, tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    constant = numpy_helper.from_array(np.int64(shift), "shift")
    path = foreign(
        tmp_path / "m.onnx",
        WEIGHTS,
        helper.make_node("Constant", [], ["shift"], value=constant),
        helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Add", ["ids", "shift"], ["labels"]),
        output=info("labels", TensorProto.INT64, ["b", "h", "w"]),
    )
    model = load_model(path, runtime, description=SAID)
    with pytest.raises(UserError, match=r"gives the labels .* but cityscapes_19 has the classes 0"):
        model.predict(street(SIZE))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [2, 18, 25])
def test_logits_of_another_class_count_that_the_graph_does_not_say(
    count: int, runtime: str, tmp_path: Path
) -> None:
    info = helper.make_tensor_value_info
    output = info("scores", TensorProto.FLOAT, ["b", "c", "h", "w"])
    path = foreign(tmp_path / "m.onnx", np.ones((count, 3, 1, 1), np.float32), output=output)
    # OpenVINO works it out; ONNX Runtime sees it when it runs.
    with pytest.raises(
        UserError, match=rf"gives {count} classes|\(1, {count}, 64, 96\) for 1 images"
    ):
        load_model(path, runtime, description=SAID).predict(street(SIZE))


@pytest.mark.parametrize(
    ("option", "numbers", "message"),
    [
        ("--pixel-std", "0 0 0", "each must be above 0"),
        ("--pixel-std", "1 0 1", "each must be above 0"),
        ("--pixel-std", "1 -2 1", "each must be above 0"),
        ("--pixel-std", "nan 1 1", "each must be above 0"),
        ("--pixel-std", "inf 1 1", "each must be above 0"),
        ("--pixel-mean", "nan 1 1", "each must be finite"),
    ],
)
def test_deviations_that_nothing_can_be_divided_by(
    option: str, numbers: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = foreign(tmp_path / "m.onnx", WEIGHTS)
    said = {"--pixel-mean": "1 1 1", "--pixel-std": "1 1 1", option: numbers}
    words = [word for name, value in said.items() for word in (name, *value.split())]
    words += ["--model", str(path), "--input", "docs/demo", "--output", str(tmp_path / "out")]
    assert main(["infer", "--taxonomy", "cityscapes_19", *words]) == 2
    assert f"{option} {numbers.split()[0]}" in capsys.readouterr().err.replace(".0", "")


def test_of_several_outputs_the_first_counts(tmp_path: Path) -> None:
    path = foreign(tmp_path / "m.onnx", WEIGHTS, helper.make_node("Neg", ["scores"], ["aux"]))
    expected = load_model(path, description=SAID).predict(street(SIZE))
    model = onnx.load(path)
    info = helper.make_tensor_value_info
    model.graph.output.append(info("aux", TensorProto.FLOAT, ["b", 19, "h", "w"]))
    onnx.save(model, path)
    for runtime in RUNTIMES:
        labels = load_model(path, runtime, description=SAID).predict(street(SIZE))
        assert (labels == expected).mean() > 0.999
