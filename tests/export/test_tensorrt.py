"""Engines: built without a GPU by TensorRT-RTX, refused in another precision, never faked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from t2sda import load_model
from t2sda.errors import MissingFileError, UserError
from t2sda.export.engines import export_engine, verify_engine
from t2sda.export.tensorrt import (
    EngineSettings,
    Layer,
    Profile,
    build_engine,
    layers_of_inspector,
    precision_of,
)
from t2sda.export.verify import metadata_of_onnx
from t2sda.runtime.description import Signature
from t2sda.runtime.onnxruntime_file import SessionRunner, open_session
from t2sda.runtime.predictor import FilePredictor
from t2sda.runtime.tensorrt_file import PROFILE_KEY, read_sidecar, sidecar_of, sidecar_text
from tests.deployed import DYNAMIC, STATIC, shared_export, street
from tests.full_disk import file_size_limit

pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX (pip install 't2sda[trt-rtx]')")

RTX = EngineSettings(target="tensorrt-rtx")
PROFILE = Profile((1, 64, 64), (1, 96, 160), (2, 128, 192))
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


@pytest.fixture
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_export(tmp_path_factory, STATIC)


@without_gpu
def test_an_engine_that_nothing_could_run_is_marked(tmp_path: Path, static: Path) -> None:
    exported = export_engine(static, tmp_path / "student.engine", RTX)
    assert exported.report is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "student.engine.unverified",
        "student.engine.unverified.json",
    ]
    described = json.loads(sidecar_of(exported.path).read_text())
    assert described["target"] == "tensorrt-rtx"
    assert described["engine_precision"] == "fp32"
    assert json.loads(described["class_names"])[0] == "road"
    with pytest.raises(UserError, match="--verify-only runs the engine, and no GPU is usable"):
        verify_engine(static, tmp_path / "student.engine")


@without_gpu
def test_a_verified_engine_gets_its_name_with_what_it_was_built_for(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    dynamic, engine = shared_export(tmp_path_factory, DYNAMIC), tmp_path / "m.engine"
    engine.write_bytes(b"an older one")
    sidecar_of(engine).write_text("its metadata")
    export_engine(dynamic, engine, EngineSettings("tensorrt-rtx", profile=PROFILE))
    assert (engine.read_bytes(), sidecar_of(engine).read_text()) == (
        b"an older one",
        "its metadata",
    )
    asked: list[tuple[str, tuple[int, ...]]] = []

    run = SessionRunner(open_session(dynamic, "cpu"))

    class InPlaceOfTheGpu:
        def __init__(self, content: bytes, target: str) -> None:
            self.target = target

        def __call__(self, images: np.ndarray) -> np.ndarray:
            asked.append((self.target, images.shape[:3]))
            return run(images)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("t2sda.export.engines.EngineRunner", InPlaceOfTheGpu)
    report = verify_engine(dynamic, engine)
    assert asked == [("tensorrt-rtx", shape) for shape in PROFILE]
    assert report.max_logit_difference is None
    assert str(report).startswith("its logits cannot be seen, 0 of ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.engine", "m.engine.json"]
    assert engine.read_bytes() != b"an older one"


@without_gpu
@pytest.mark.parametrize(("local", "runs"), [((8, 6), True), ((8, 9), True), ((12, 0), False)])
def test_an_engine_for_other_gpus_is_not_run_on_this_one(
    local: tuple[int, int],
    runs: bool,
    tmp_path: Path,
    static: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = SessionRunner(open_session(static, "cpu"))

    def in_place_of_the_gpu(content: bytes, target: str) -> SessionRunner:
        assert runs
        return run

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: local)
    monkeypatch.setattr("t2sda.export.engines.EngineRunner", in_place_of_the_gpu)
    settings = EngineSettings("tensorrt-rtx", compute_capabilities=("8.6", "8.9"))
    exported = export_engine(static, tmp_path / "m.engine", settings)
    assert exported.path.name == ("m.engine" if runs else "m.engine.unverified")
    assert (exported.report is not None) == runs
    assert read_sidecar(exported.path)["target"] == "tensorrt-rtx"


@without_gpu
def test_a_full_disk_leaves_the_old_engine(tmp_path: Path, static: Path) -> None:
    engine = tmp_path / "m.engine.unverified"
    old = {engine.name: "an older one", sidecar_of(engine).name: "its metadata"}
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    with file_size_limit(10_000), pytest.raises(UserError, match=r"m\.engine.*cannot be written"):
        export_engine(static, tmp_path / "m.engine", RTX)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old


@without_gpu
def test_a_full_disk_leaves_what_was_to_be_verified(
    tmp_path: Path, static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "m.engine"
    export_engine(static, engine, RTX)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("t2sda.export.engines._verified", lambda *_: None)
    with file_size_limit(10_000), pytest.raises(UserError, match=r"m\.engine: cannot be written"):
        verify_engine(static, engine)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_dynamic_files_need_a_profile_and_static_ones_have_none(
    tmp_path_factory: pytest.TempPathFactory, static: Path
) -> None:
    dynamic = shared_export(tmp_path_factory, DYNAMIC)
    with pytest.raises(UserError, match="takes any size; say --profile BxHxW"):
        build_engine(dynamic, RTX)
    with pytest.raises(UserError, match=r"takes \(1, 96, 160, 3\) only; leave out --profile"):
        build_engine(static, EngineSettings("tensorrt-rtx", profile=PROFILE))
    built = build_engine(dynamic, EngineSettings("tensorrt-rtx", profile=PROFILE))
    assert built.precision == "fp32"
    assert {layer.precision for layer in built.layers if layer.kind == "CONVOLUTION"} == {"fp32"}
    wrong = Profile((1, 128, 64), (1, 96, 160), (2, 128, 192))
    with pytest.raises(UserError, match="every side of the smallest must be at most"):
        build_engine(dynamic, EngineSettings("tensorrt-rtx", profile=wrong))


def test_another_precision_is_refused(tmp_path: Path, static: Path) -> None:
    with pytest.raises(UserError, match=r"compute in fp32, not in fp16; precision lives in"):
        export_engine(
            static, tmp_path / "m.engine", EngineSettings("tensorrt-rtx", precision="fp16")
        )
    assert not list(tmp_path.iterdir())


def test_precision_is_that_of_the_layers_that_compute() -> None:
    def layers(*precisions: str) -> list[Layer]:
        return [Layer("name", "CONVOLUTION", precision) for precision in precisions]

    cast = Layer("cast", "CAST", "fp32")
    assert precision_of([cast, *layers("fp16", "fp16", "fp32")]) == "fp16"
    assert precision_of([cast, *layers("fp32", "int8", "fp32")]) == "int8"


def test_inspector_tables_are_read() -> None:
    half = {"Name": "x", "Format/Datatype": "Channel major FP16 format where C % 8 == 0"}
    bias, brain = {"Name": "b", "Format/Datatype": "Float"}, {"Format/Datatype": "BFloat16"}
    layers: list[object] = [
        {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [half, bias]},
        {"Name": "product", "LayerType": "gemm", "Inputs": [brain]},
        "brief",
    ]
    assert layers_of_inspector(json.dumps({"Layers": layers})) == (
        Layer("conv", "CaskConvolution", "fp16"),
        Layer("product", "gemm", "bf16"),
        Layer("brief", "", ""),
    )


def test_settings_that_do_not_fit(tmp_path: Path, static: Path) -> None:
    for settings, message in (
        (EngineSettings("tensorrt-rtx", timing_cache=tmp_path / "c"), "TensorRT-RTX has none"),
        (EngineSettings("tensorrt-rtx", version_compatible=True), "lacks the lean runtime"),
        (
            EngineSettings("tensorrt-rtx", compute_capabilities=("1.0",)),
            r"--compute-capability 1\.0: unknown; one of .*8\.6",
        ),
    ):
        with pytest.raises(UserError, match=message):
            build_engine(static, settings)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UserError, match=r"text\.onnx: not an ONNX file"):
        export_engine(tmp_path / "text.onnx", tmp_path / "m.engine", RTX)
    with pytest.raises(UserError, match="not an ONNX file"):
        build_engine(tmp_path / "text.onnx", RTX)
    with pytest.raises(MissingFileError, match=r"nowhere\.onnx: no such file"):
        export_engine(tmp_path / "nowhere.onnx", tmp_path / "m.engine", RTX)
    with pytest.raises(MissingFileError, match=r"m\.engine\.unverified: no such file"):
        verify_engine(tmp_path / "text.onnx", tmp_path / "m.engine")
    with pytest.raises(UserError, match=r"must end in \.engine or \.plan"):
        export_engine(tmp_path / "text.onnx", tmp_path / "m.trt", RTX)


@without_gpu
def test_loading_an_engine_where_none_runs(tmp_path: Path, static: Path) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"engine")
    with pytest.raises(MissingFileError, match=r"m\.engine\.json, which says what it is"):
        load_model(engine, device="cuda")
    sidecar_of(engine).write_text("{}")
    with pytest.raises(
        UserError,
        match=r"damaged; export it again \(`t2sda export tensorrt FILE\.onnx --output m\.engine`",
    ):
        load_model(engine, device="cuda")
    unverified = export_engine(static, engine, RTX).path
    sidecar_of(engine).write_text(sidecar_of(unverified).read_text())
    with pytest.raises(UserError, match="is a file for tensorrt-rtx; tensorrt cannot run it"):
        load_model(engine, "tensorrt", device="cuda")
    for device in (None, "auto", "cuda"):
        with pytest.raises(UserError, match=r"engines run on an NVIDIA GPU .* none is usable here"):
            load_model(engine, device=device)
    with pytest.raises(UserError, match="engines run on .* device cpu was asked for"):
        load_model(engine, device="cpu")


def test_an_engine_needs_no_device_to_be_named(
    tmp_path: Path, static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InPlaceOfTheGpu:
        max_batch_size = 1

        signature = Signature((1, 96, 160, 3), "uint8", (1, 96, 160), "uint8")

        def __init__(self, engine: bytes, target: str, name: object) -> None:
            self.loaded = (engine, target)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("t2sda.runtime.tensorrt_file.EngineRunner", InPlaceOfTheGpu)
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"engine")
    sidecar_of(engine).write_text(
        sidecar_text(metadata_of_onnx(static), "tensorrt-rtx", {PROFILE_KEY: None}, b"engine")
    )
    for runtime, device in ((None, None), ("tensorrt-rtx", None), (None, "auto"), (None, "cuda")):
        model = load_model(engine, runtime, device)
        assert isinstance(model, FilePredictor)
        assert model.runtime == "tensorrt-rtx"
        assert model.run.loaded == (b"engine", "tensorrt-rtx")  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="engines run on .* device cpu was asked for"):
        load_model(engine, device="cpu")
    engine.write_bytes(b"engin3")
    with pytest.raises(UserError, match="its metadata and its weights do not belong together"):
        load_model(engine)


@pytest.mark.gpu
def test_an_engine_runs_and_is_verified(tmp_path: Path, static: Path) -> None:
    exported = export_engine(static, tmp_path / "m.engine", RTX)
    assert exported.report is not None
    image = street((96, 160))
    labels = load_model(exported.path, device="cuda").predict(image)
    assert (labels != load_model(static).predict(image)).mean() <= 0.005


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_timing_cache_and_inspector(tmp_path: Path, static: Path) -> None:
    settings = EngineSettings("tensorrt", timing_cache=tmp_path / "cache")
    assert build_engine(static, settings).inspected
    assert (tmp_path / "cache").stat().st_size > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_tensorrt_proper_needs_its_gpu(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt_rtx

    monkeypatch.setattr("t2sda.export.tensorrt.import_tensorrt", lambda target: tensorrt_rtx)
    with pytest.raises(UserError, match="--target tensorrt-rtx builds without one"):
        build_engine(static, EngineSettings("tensorrt"))
    with pytest.raises(UserError, match="TensorRT builds for the GPU that is there"):
        build_engine(static, EngineSettings("tensorrt", compute_capabilities=("8.6",)))
