"""The reader of ONNX files: what it finds is what `onnx` finds, and damage is one message."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from t2sda import load_model
from t2sda.errors import UserError
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.onnx_content import (
    check_external_data,
    check_weights,
    content_of,
    properties_of_onnx,
)
from tests.deployed import street
from tests.tiny_onnx import SIZE, tiny_model, write_tiny


def test_metadata_is_what_onnx_reads(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    model = onnx.load(path)
    assert properties_of_onnx(path) == {item.key: item.value for item in model.metadata_props}


def test_content_is_the_same_wherever_the_weights_lie(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    whole = b"".join(map(bytes, content_of(path)))
    model = onnx.load(path)
    onnx.save(
        model, tmp_path / "e.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    assert b"".join(map(bytes, content_of(tmp_path / "e.onnx"))) == whole
    helper.set_model_props(model, {"other": "metadata"})
    model.graph.initializer[0].doc_string = "of no meaning"
    onnx.save(model, path)
    assert b"".join(map(bytes, content_of(path))) == whole
    model.graph.initializer[0].name = "w"
    onnx.save(model, path)
    assert b"".join(map(bytes, content_of(path))) != whole


WHOLE = tiny_model().SerializeToString()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end]),
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)).map(
            lambda flip: WHOLE[: flip[0]] + bytes([WHOLE[flip[0]] ^ flip[1]]) + WHOLE[flip[0] + 1 :]
        ),
    )
)
def test_damage_is_an_error_or_no_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for read in (
        check_external_data,
        check_weights,
        properties_of_onnx,
        lambda path: list(content_of(path)),
    ):
        with contextlib.suppress(UserError):
            read(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path, place: int, bit: int) -> None:
    path = tmp_path / "m.onnx"
    content = bytearray(write_tiny(path).read_bytes())
    expected = load_model(path).predict(street(SIZE))
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        model = load_model(path)
    except UserError:
        return
    assert np.array_equal(model.predict(street(SIZE)), expected)
    assert isinstance(model.metadata, Metadata)  # type: ignore[attr-defined]


@pytest.mark.parametrize("location", ["a" * 5000, "\0", "", ".", "x/../../y", "C:\\weights"])
def test_places_that_no_weights_lie_at(location: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="is refused|is not beside it"):
        load_model(tmp_path / "m.onnx")
