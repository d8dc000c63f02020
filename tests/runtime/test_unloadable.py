"""A file that does not load is named, with what is wrong as far as known and what to do."""

from __future__ import annotations

import re
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import openvino
import pytest
from onnx import helper

from t2sda import load_model
from t2sda.errors import UserError
from t2sda.runtime import tensorrt_file, unloadable
from t2sda.runtime.description import Description
from tests.tiny_onnx import metadata, tiny_model, write_tiny

TAXONOMY = Description(taxonomy="cityscapes_19")
ONNX_AGAIN = r"export it again \(`t2sda export onnx RUN --output m\.onnx`\)"
IR_AGAIN = r"export it again \(`t2sda export openvino FILE\.onnx --output m\.xml`\)"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"


def archive(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return path.read_bytes()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty"),
        (PAGE, "it is a web page, not the file itself; download it again"),
        (LFS, "it is a Git LFS pointer, not the file itself; run `git lfs pull`"),
        (DENIED, "it is an XML document, perhaps a server's error message; download it again"),
        (None, "it is an archive, such as a checkpoint of PyTorch, whose name ends in .pth"),
        (b"\x80\x02}q\x00.", "it is a pickle, such as an old checkpoint of PyTorch"),
        (b"no model", "the file is cut short or damaged"),
    ],
)
def test_another_file_in_the_place_of_an_onnx_file(
    runtime: str, content: bytes | None, found: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(archive(tmp_path / "a.zip") if content is None else content)
    message = rf"m\.onnx: not an ONNX file \({re.escape(found)}\); {ONNX_AGAIN}$"
    with pytest.raises(UserError, match=message):
        load_model(path, runtime)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty"),
        (PAGE, "it is a web page, not the file itself; download it again"),
        (LFS, "it is a Git LFS pointer, not the file itself; run `git lfs pull`"),
        (DENIED, "it is an XML document without a network, perhaps a server's message"),
        (b"\x08\x07 onnx", "it is no XML"),
    ],
)
def test_another_file_in_the_place_of_an_ir(
    content: bytes, found: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.xml").write_bytes(content)
    (tmp_path / "m.bin").write_bytes(b"weights")
    message = rf"m\.xml: not an OpenVINO IR \({re.escape(found)}\); {IR_AGAIN}$"
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "m.xml")
    assert capfd.readouterr().err == ""  # OpenVINO would try every reader that it has


def newer_ir(model: Any) -> None:
    model.ir_version = 99


def newer_opset(model: Any) -> None:
    model.opset_import[0].version = 99


def unknown_operator(model: Any) -> None:
    model.graph.node[1].op_type = "Frobnicate"


def custom_operator(model: Any) -> None:
    model.graph.node[1].domain, model.graph.node[1].op_type = "mmcv", "Deform"
    model.opset_import.append(helper.make_opsetid("mmcv", 1))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (newer_ir, "Unsupported model IR version: 99, max supported IR version: "),
        (newer_opset, ".*[Oo]pset 99 is under development"),
        (unknown_operator, ".*No Op registered for Frobnicate with domain_version of 20"),
        (custom_operator, r".*mmcv:Deform\(-1\) is not a registered function/op"),
    ],
)
def test_what_this_version_does_not_know(
    change: Callable[[Any], None], cause: str, tmp_path: Path
) -> None:
    model = tiny_model(properties={"tool": "other"})
    change(model)
    onnx.save(model, tmp_path / "m.onnx")
    advice = "if the file is for a newer ONNX Runtime, upgrade it, or"
    message = (
        rf"m\.onnx: ONNX Runtime [\d.]+ cannot load this file: {cause}.*; {advice} {ONNX_AGAIN}$"
    )
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "m.onnx", description=TAXONOMY)


def dangling(model: Any) -> None:
    model.graph.node[2].input[1] = "nowhere"


def without_its_output(model: Any) -> None:
    model.graph.output[0].name = "nowhere"


def of_another_type(model: Any) -> None:
    del model.graph.node[0]
    model.graph.node[0].input[0] = "images"


@pytest.mark.parametrize("change", [dangling, without_its_output, of_another_type])
def test_a_graph_that_does_not_hold_together(change: Callable[[Any], None], tmp_path: Path) -> None:
    model = tiny_model(properties={"tool": "other"})
    change(model)
    onnx.save(model, tmp_path / "m.onnx")
    for runtime in ("ONNX Runtime", "OpenVINO"):
        message = rf"m\.onnx: {runtime} [\d.]+ cannot load this file: .*; .*{ONNX_AGAIN}$"
        with pytest.raises(UserError, match=message):
            load_model(tmp_path / "m.onnx", runtime.replace(" ", "").lower(), description=TAXONOMY)


@pytest.fixture(scope="module")
def ir(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Text and weights."""
    folder = tmp_path_factory.mktemp("ir")
    onnx.save(tiny_model(properties={"tool": "other"}), folder / "m.onnx")
    openvino.save_model(openvino.Core().read_model(folder / "m.onnx"), folder / "m.xml")
    return (folder / "m.xml").read_bytes(), (folder / "m.bin").read_bytes()


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (
            lambda text, weights: (text[: len(text) // 2], weights),
            "(Error parsing|Start-end tags mismatch)",
        ),
        (lambda text, weights: (text, weights[:9]), "Incorrect weights in bin file!"),
        (lambda text, weights: (text, b""), "Incorrect weights in bin file!"),
        (
            lambda text, weights: (text.replace(b'"Convolution"', b'"Frob"'), weights),
            "Opset opset1 doesn't contain the operation with type: Frob; if .* newer OpenVINO",
        ),
    ],
)
def test_an_ir_that_is_damaged(
    change: Callable[[bytes, bytes], tuple[bytes, bytes]],
    cause: str,
    ir: tuple[bytes, bytes],
    tmp_path: Path,
) -> None:
    text, weights = change(*ir)
    (tmp_path / "m.xml").write_bytes(text)
    (tmp_path / "m.bin").write_bytes(weights)
    message = rf"m\.xml: OpenVINO [\d.]+ cannot load this file: {cause}.*{IR_AGAIN}$"
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "m.xml", description=TAXONOMY)


def test_weights_that_are_missing(ir: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_bytes(ir[0])
    with pytest.raises(UserError, match=rf"m\.bin, its weights, .*copy it there, or {IR_AGAIN}"):
        load_model(tmp_path / "m.xml")
    beside = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
    onnx.save(tiny_model(), tmp_path / "m.onnx", **beside)
    whole = (tmp_path / "w.data").read_bytes()
    (tmp_path / "w.data").write_bytes(whole[:9])
    with pytest.raises(UserError, match=rf"is shorter than .*copy it again, or {ONNX_AGAIN}"):
        load_model(tmp_path / "m.onnx")
    (tmp_path / "w.data").unlink()
    with pytest.raises(UserError, match=rf"not beside it; copy it there, or {ONNX_AGAIN}"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_of_another_version_or_gpu(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = types.SimpleNamespace(deserialize_cuda_engine=lambda content: None)
    module = types.SimpleNamespace(
        __version__="10.9",
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
        Runtime=lambda logger: refusing,
    )
    monkeypatch.setattr(tensorrt_file, "import_tensorrt", lambda target: module)
    monkeypatch.setattr(tensorrt_file, "has_gpu", lambda: True)
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"engine")
    extra = {tensorrt_file.PROFILE_KEY: None}
    text = tensorrt_file.sidecar_text(metadata(), target, extra, b"engine")
    tensorrt_file.sidecar_of(engine).write_text(text)
    message = (
        rf"m\.engine: {target} 10\.9 cannot load this engine here; .* the kind of GPU .*: "
        r"export it again \(`t2sda export tensorrt FILE\.onnx --output m\.engine`\) on this"
    )
    with pytest.raises(UserError, match=message):
        load_model(engine)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_loads_is_not_looked_at_in_vain(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Path] = []
    monkeypatch.setattr(unloadable, "_beginning", looked_at.append)
    assert load_model(write_tiny(tmp_path / "m.onnx"), runtime).runtime == runtime
    assert looked_at == []
