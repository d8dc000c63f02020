"""A model is its graph, weights and metadata."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from t2sda.errors import UserError
from t2sda.runtime.identity import model_digest
from tests.tiny_onnx import WEIGHTS, metadata, tiny_model

EXTERNAL = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}


def test_where_weights_lie_does_not_matter_and_what_they_are_does(tmp_path: Path) -> None:
    onnx.save(tiny_model(), tmp_path / "inside.onnx")
    onnx.save(tiny_model(), tmp_path / "outside.onnx", **EXTERNAL)
    inside, outside = (model_digest(tmp_path / f"{name}.onnx") for name in ("inside", "outside"))
    assert inside == outside
    data = tmp_path / "w.data"
    changed = bytearray(data.read_bytes())
    changed[-1] ^= 1
    data.write_bytes(changed)
    assert model_digest(tmp_path / "outside.onnx") != outside
    data.unlink()
    with pytest.raises(UserError, match=r"outside\.onnx: its weights file 'w\.data' is not beside"):
        model_digest(tmp_path / "outside.onnx")


def test_metadata_count(tmp_path: Path) -> None:
    digests = set()
    for number, properties in enumerate(
        (None, {"tool": "other"}, metadata(image_bound=(9, 9)).to_properties(), {"format": "other"})
    ):
        onnx.save(tiny_model(properties=properties), tmp_path / f"{number}.onnx")
        digests.add(model_digest(tmp_path / f"{number}.onnx"))
    onnx.save(tiny_model(weights=-WEIGHTS), tmp_path / "negated.onnx")
    assert len(digests | {model_digest(tmp_path / "negated.onnx")}) == 5


@pytest.mark.parametrize(
    ("model", "beside"), [("m.xml", "m.bin"), ("m.engine", "m.engine.json"), ("M.XML", "M.bin")]
)
def test_a_file_beside_it_counts(tmp_path: Path, model: str, beside: str) -> None:
    (tmp_path / model).write_bytes(b"graph")
    (tmp_path / beside).write_bytes(b"weights")
    before = model_digest(tmp_path / model)
    assert model_digest(tmp_path / model) == before
    (tmp_path / beside).write_bytes(b"Weights")
    assert model_digest(tmp_path / model) != before
