"""A file of ours in milliseconds: one 1x1 convolution, written without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.export.onnx import seal_onnx
from t2sda.runtime.metadata import Metadata, OutputKind

NUM_CLASSES = CITYSCAPES_19.num_classes
WEIGHTS = np.random.default_rng(0).normal(size=(NUM_CLASSES, 3, 1, 1)).astype(np.float32)
SIZE = (64, 96)


def metadata(output_kind: OutputKind = "labels", **changes: Any) -> Metadata:
    """Of a static file."""
    values = {
        "taxonomy": CITYSCAPES_19,
        "image_size": SIZE,
        "image_bound": None,
        "pixel_mean": (100.0, 110.0, 120.0),
        "pixel_std": (50.0, 60.0, 70.0),
        "layout": "nhwc",
        "output_kind": output_kind,
        "precision": "fp32",
        "origin": {"run": "tiny", "iteration": 1},
        "versions": {"t2sda": "0"},
    }
    return Metadata(**{**values, **changes})


def tiny_model(
    output_kind: OutputKind = "labels",
    *,
    weights: np.ndarray = WEIGHTS,
    size: tuple[Any, Any] = SIZE,
    properties: dict[str, str] | None = None,
) -> Any:
    """uint8 (1, H, W, 3) -> labels or logits, as a ModelProto with metadata."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["logits"]),
    ]
    output = info("logits", TensorProto.FLOAT, [1, len(weights), *size])
    if output_kind == "labels":
        nodes += [
            helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
            helper.make_node("Cast", ["ids"], ["labels"], to=TensorProto.UINT8),
        ]
        output = info("labels", TensorProto.UINT8, [1, *size])
    graph = helper.make_graph(
        nodes,
        "t2sda",
        [info("images", TensorProto.UINT8, [1, *size, 3])],
        [output],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, properties or metadata(output_kind).to_properties())
    return model


def write_tiny(path: Path, model: Any = None, *, seal: bool = True) -> Path:
    """Save a model, by default that of labels, as `t2sda export` would."""
    onnx.save(model or tiny_model(), path)
    if seal:
        seal_onnx(path)
    return path


def edited(path: Path, change: Callable[[Any], None]) -> Path:
    """The file with its content changed after the export."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def with_value(properties: dict[str, str], key: str, value: Any) -> dict[str, str]:
    """Metadata with another value; text is taken as it is."""
    return {**properties, key: value if isinstance(value, str) else json.dumps(value)}
