"""What a file says about itself: read back as written, bound to its weights, never nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.errors import UserError
from t2sda.export.openvino import export_openvino
from t2sda.runtime.metadata import MAX_LENGTH, Metadata
from tests.deployed import street
from tests.tiny_onnx import SIZE, edited, metadata, tiny_model, with_value, write_tiny

PROPERTIES = metadata().to_properties()
DEEP = "[" * 100_000
APART = "its metadata and its weights do not belong together"


def test_it_is_read_back_as_it_was_written() -> None:
    for written in (metadata(), metadata(image_size=None, image_bound=(512, 1024))):
        assert Metadata.from_properties(written.to_properties(), "m.onnx") == written


def color(*parts: Any) -> list[Any]:
    return [list(parts), *([[0, 0, 0]] * 18)]


NONSENSE: list[tuple[str, Any]] = [
    ("palette", color(999, 0, 0)),
    ("palette", color(-1, 0, 0)),
    ("palette", color(0.5, 0, 0)),
    ("palette", color(True, 0, 0)),
    ("palette", color(1, 2)),
    ("palette", color(1, 2, 3)[:7]),
    ("palette", DEEP),
    ("palette", "[" * 20_000),
    ("palette", "1" * (MAX_LENGTH + 1)),
    ("class_names", ["road"]),
    ("class_names", ["road"] * 19),
    ("class_names", list(range(19))),
    ("class_names", ["\x1b[31m", *map(str, range(18))]),
    ("class_names", {"road": 1}),
    ("taxonomy", 3),
    ("subsets", {"mIoU16": [99]}),
    ("subsets", [1]),
    ("image_size", [0, 96]),
    ("image_size", [-64, 96]),
    ("image_size", [64.5, 96]),
    ("image_size", [1_000_000, 1_000_000]),
    ("image_size", [32_000, 32_000]),
    ("image_size", [64]),
    ("image_size", "64"),
    ("image_bound", [0, 0]),
    ("image_bound", [1, 1_000_000]),
    ("image_bound", [[[]]]),
    ("pixel_mean", "[NaN, 1, 1]"),
    ("pixel_mean", "[1e999, 1, 1]"),
    ("pixel_mean", [1, 2]),
    ("pixel_std", [0, 1, 1]),
    ("pixel_std", [-1, 1, 1]),
    ("pixel_std", ["1", 1, 1]),
    ("layout", "chwn"),
    ("output_kind", ["labels"]),
    ("precision", "int4"),
    ("origin", [1]),
    ("versions", DEEP),
    ("versions", "not JSON"),
]


@pytest.mark.parametrize(("key", "value"), NONSENSE, ids=lambda item: str(item)[:30])
def test_values_that_no_export_writes(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=r"m\.onnx: its metadata is damaged") as error:
        Metadata.from_properties(with_value(PROPERTIES, key, value), "m.onnx")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("key", "value"), [("palette", color(999, 0, 0)), ("palette", DEEP), ("image_bound", [0, 0])]
)
def test_a_file_of_such_values_is_one_message(
    key: str, value: Any, runtime: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed_so = write_tiny(
        tmp_path / "m.onnx", tiny_model(properties=with_value(PROPERTIES, key, value))
    )
    words = ["infer", "--input", "docs/demo", "--output", str(tmp_path / "out")]
    assert main([*words, "--model", str(sealed_so), "--runtime", runtime]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_size", [32, 96], "takes images of 64x96, but its metadata says 32x96"),
        ("image_size", '"dynamic"', "takes images of 64x96, but its metadata says any size"),
        ("layout", '"nchw"', "is not nchw with 3 channels"),
        ("output_kind", '"logits"', "gives uint8 .*; logits are floats"),
        ("output_kind", '"probabilities"', "gives uint8 .*; probabilities are floats"),
    ],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_metadata_that_contradicts_the_graph(
    key: str, value: Any, message: str, runtime: str, tmp_path: Path
) -> None:
    path = write_tiny(
        tmp_path / "m.onnx", tiny_model(properties=with_value(PROPERTIES, key, value))
    )
    with pytest.raises(UserError, match=message):
        load_model(path, runtime)


def test_logits_of_another_class_count_than_the_metadata_names(tmp_path: Path) -> None:
    properties = metadata("logits").to_properties()
    for count in (18, 5, 20):
        weights = np.ones((count, 3, 1, 1), np.float32)
        model = tiny_model("logits", weights=weights, properties=properties)
        path = write_tiny(tmp_path / "m.onnx", model)
        for runtime in ("onnxruntime", "openvino"):
            with pytest.raises(UserError, match=f"gives {count} classes, but cityscapes_19 has 19"):
                load_model(path, runtime)


def change_a_weight(model: Any) -> None:
    data = bytearray(model.graph.initializer[0].raw_data)
    data[5] ^= 1
    model.graph.initializer[0].raw_data = bytes(data)


def change_a_node(model: Any) -> None:
    model.graph.node[1].attribute[0].ints[:] = [0, 3, 2, 1]


def change_the_palette(model: Any) -> None:
    _set(model, "palette", json.dumps(color(1, 2, 3)))


def take_the_metadata_of_another_file(model: Any) -> None:
    onnx.helper.set_model_props(model, {**metadata(origin={"run": "b"}).to_properties()})


def drop_the_digest(model: Any) -> None:
    for item in list(model.metadata_props):
        if item.key == "digest":
            model.metadata_props.remove(item)


def _set(model: Any, key: str, value: str) -> None:
    next(item for item in model.metadata_props if item.key == key).value = value


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "change",
    [
        change_a_weight,
        change_a_node,
        change_the_palette,
        take_the_metadata_of_another_file,
        drop_the_digest,
    ],
)
def test_an_onnx_file_that_was_changed_after_the_export(
    change: Any, runtime: str, tmp_path: Path
) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    assert load_model(path, runtime).predict(street(SIZE)).shape == SIZE
    edited(path, change)
    with pytest.raises(UserError, match=rf"m\.onnx: {APART}"):
        load_model(path, runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_in_a_file_of_their_own_belong_to_it(runtime: str, tmp_path: Path) -> None:
    expected = load_model(write_tiny(tmp_path / "m.onnx")).predict(street(SIZE))
    onnx.save(
        onnx.load(tmp_path / "m.onnx"),
        tmp_path / "big.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    path, weights = tmp_path / "big.onnx", tmp_path / "weights.bin"
    assert np.array_equal(load_model(path, runtime).predict(street(SIZE)), expected)
    content = weights.read_bytes()
    for damaged, message in (
        (bytes([content[0] ^ 1]) + content[1:], APART),
        (content[:100], "is shorter than it says"),
        (content[:4] + content[:4] + content[8:], APART),
    ):
        weights.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            load_model(path, runtime)


def test_links_into_one_folder_are_followed_as_caches_keep_them(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.onnx")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    onnx.save(
        onnx.load(tmp_path / "m.onnx"),
        tmp_path / "blobs/m.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    for name, blob in (("m.onnx", "blobs/ab12"), ("weights.bin", "blobs/cd34")):
        (tmp_path / "blobs" / name).rename(tmp_path / blob)
        (tmp_path / "snapshot" / name).symlink_to(f"../{blob}")
    model = load_model(tmp_path / "snapshot/m.onnx")
    assert model.predict(street(SIZE)).shape == SIZE
    (tmp_path / "blobs/cd34").rename(tmp_path / "elsewhere")
    (tmp_path / "snapshot/weights.bin").unlink()
    (tmp_path / "snapshot/weights.bin").symlink_to("../elsewhere")
    with pytest.raises(UserError, match="outside its folder; this is refused"):
        load_model(tmp_path / "snapshot/m.onnx")


def test_an_ir_and_its_weights_belong_together(tmp_path: Path) -> None:
    xml = tmp_path / "m.xml"
    export_openvino(write_tiny(tmp_path / "m.onnx"), xml, precision="fp32")
    assert load_model(xml).predict(street(SIZE)).shape == SIZE
    text, weights = xml.read_text(), xml.with_suffix(".bin").read_bytes()
    damaged = bytearray(weights)
    damaged[len(weights) // 2] ^= 1
    for changed_text, changed_weights in (
        (text, bytes(damaged)),
        (text, weights[:-1] + b"\xff"),
        (text.replace("[128, 64, 128]", "[128, 64, 129]"), weights),
        (text.replace('net name="', 'net name="other_'), weights),
    ):
        assert (changed_text, changed_weights) != (text, weights)
        xml.write_text(changed_text)
        xml.with_suffix(".bin").write_bytes(changed_weights)
        with pytest.raises(UserError, match=rf"m\.xml: {APART}"):
            load_model(xml)


def test_an_ir_with_the_weights_of_another_export(tmp_path: Path) -> None:
    for name, weights in (("a", None), ("b", np.ones((19, 3, 1, 1), np.float32))):
        model = tiny_model(**({} if weights is None else {"weights": weights}))
        source = write_tiny(tmp_path / f"{name}.onnx", model)
        export_openvino(source, tmp_path / f"{name}.xml", precision="fp32")
    (tmp_path / "b.bin").replace(tmp_path / "a.bin")
    with pytest.raises(UserError, match=APART):
        load_model(tmp_path / "a.xml")
