"""OpenVINO IR: verified, in the precision asked for, both files or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest

from t2sda import load_model
from t2sda.errors import UserError
from t2sda.export.openvino import export_openvino
from t2sda.export.verify import Tolerance
from t2sda.runtime.openvino_file import (
    OpenVinoRunner,
    cpu_capabilities,
    open_core,
    read_model,
)
from t2sda.runtime.predictor import FilePredictor
from tests.deployed import (
    DYNAMIC,
    DYNAMIC_LOGITS,
    IMAGE_SIZE,
    STATIC,
    STATIC_PROBABILITIES,
    shared_export,
    street,
)

HAS_BF16 = "BF16" in cpu_capabilities(open_core())


@pytest.fixture
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_export(tmp_path_factory, STATIC)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_labels_are_those_of_the_onnx_file(tmp_path: Path, static: Path) -> None:
    output = tmp_path / "student.xml"
    report = export_openvino(static, output, precision="fp32")
    assert report.num_changed == report.num_ties
    assert names(tmp_path) == ["student.bin", "student.xml"]
    for place in (b"/tmp", str(Path(openvino.__file__).parents[1]).encode()):
        assert place not in output.read_bytes()
    model = load_model(output)
    assert isinstance(model, FilePredictor)
    assert model.runtime == "openvino"
    assert model.metadata.image_size == IMAGE_SIZE
    assert model.metadata.precision == "fp32"
    assert "openvino" in model.metadata.versions
    image = street((120, 140))
    assert (model.predict(image) != load_model(static).predict(image)).mean() < 1e-3


@pytest.mark.skipif(not HAS_BF16, reason="needs a CPU with bf16 instructions")
def test_bf16_computes_in_bf16_and_halves_the_weights(tmp_path: Path, static: Path) -> None:
    for precision in ("fp32", "bf16"):
        export_openvino(static, tmp_path / f"{precision}.xml", precision=precision)
    sizes = [(tmp_path / f"{precision}.bin").stat().st_size for precision in ("fp32", "bf16")]
    assert sizes[1] < 0.6 * sizes[0]
    for precision, expected in (("fp32", "f32"), ("bf16", "bf16")):
        model = load_model(tmp_path / f"{precision}.xml")
        assert isinstance(model, FilePredictor)
        assert isinstance(model.run, OpenVinoRunner)
        assert model.run.precision == expected


def test_probabilities_are_compared_by_their_logits(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = shared_export(tmp_path_factory, STATIC_PROBABILITIES)
    report = export_openvino(source, tmp_path / "student.xml", precision="fp32")
    assert report.max_logit > 1, "not that of probabilities"
    assert report.max_logit_difference is not None
    assert 0 < report.max_logit_difference < 1e-3
    image = street(IMAGE_SIZE)
    np.testing.assert_allclose(
        load_model(tmp_path / "student.xml").probabilities(image),
        load_model(source).probabilities(image),
        atol=1e-4,
    )


def test_a_cpu_without_bf16_is_an_error(
    tmp_path: Path, static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t2sda.runtime.openvino_file.cpu_capabilities", lambda core: ["FP32"])
    with pytest.raises(UserError, match=r"bf16, which this CPU has no instructions for"):
        export_openvino(static, tmp_path / "m.xml", precision="bf16")
    assert names(tmp_path) == []


def test_a_file_of_any_size_is_fixed_or_left_so(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = shared_export(tmp_path_factory, DYNAMIC_LOGITS)
    with pytest.raises(UserError, match="takes any size; say --size HEIGHT WIDTH, or --dynamic"):
        export_openvino(source, tmp_path / "m.xml", precision="fp32")
    export_openvino(source, tmp_path / "fixed.xml", precision="fp32", image_size=(64, 96))
    graph = read_model(tmp_path / "fixed.xml")
    assert list(graph.inputs[0].get_shape()) == [1, 64, 96, 3]
    image = street((64, 96))
    fixed, onnx_model = load_model(tmp_path / "fixed.xml"), load_model(source)
    np.testing.assert_allclose(fixed.logits(image), onnx_model.logits(image), atol=1e-3)
    export_openvino(source, tmp_path / "any.xml", precision="fp32", dynamic=True)
    model = load_model(tmp_path / "any.xml")
    assert model.max_batch_size is None
    images = [street((65, 97), index) for index in range(2)]
    pairs = zip(model.predict(images, batch_size=2), onnx_model.predict(images), strict=True)
    for ours, theirs in pairs:
        assert (ours != theirs).mean() < 1e-3


def test_onnx_files_run_in_openvino_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    path, image = shared_export(tmp_path_factory, DYNAMIC), street((97, 131))
    labels = load_model(path, "openvino").predict(image)
    assert (labels != load_model(path).predict(image)).mean() < 1e-3


def test_a_file_that_disagrees_is_not_kept(tmp_path: Path, static: Path) -> None:
    (tmp_path / "m.xml").write_text("the old one")
    with pytest.raises(UserError, match="disagrees with its source"):
        export_openvino(static, tmp_path / "m.xml", precision="fp32", tolerance=Tolerance(0.0, 0.0))
    assert (tmp_path / "m.xml").read_text() == "the old one"
    assert names(tmp_path) == ["m.xml"]


def test_an_old_xml_never_lies_beside_new_weights(
    tmp_path: Path, static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.xml").write_text("the old one")
    replace = Path.replace

    def killed_before_the_second(self: Path, target: Path) -> Path:
        if target.suffix == ".xml":
            raise OSError("killed")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed_before_the_second)
    with pytest.raises(UserError, match=r"m\.xml: cannot be written \(killed\)"):
        export_openvino(static, tmp_path / "m.xml", precision="fp32")
    assert names(tmp_path) == ["m.bin"]


def test_bad_input(tmp_path: Path, static: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "lonely.xml").write_text("<net/>")
    for source, output, precision, message in (
        (static, "m.onnx", "fp32", r"m\.onnx: an OpenVINO file ends in \.xml"),
        (static, "m.xml", "int8", r"is in fp32, .* not in int8; --calibration quantises it"),
        (tmp_path / "text.onnx", "m.xml", "fp32", r"text\.onnx: not an ONNX file"),
    ):
        with pytest.raises(UserError, match=message):
            export_openvino(source, tmp_path / output, precision=precision)
    with pytest.raises(UserError, match="takes images of 96x160 only; leave out --size"):
        export_openvino(static, tmp_path / "m.xml", precision="fp32", image_size=(64, 64))
    with pytest.raises(UserError, match=r"lonely\.bin, its weights, is not beside it"):
        load_model(tmp_path / "lonely.xml")
    (tmp_path / "folder.xml").mkdir()
    with pytest.raises(UserError, match=r"folder\.xml: is a folder; --output names the file"):
        export_openvino(static, tmp_path / "folder.xml", precision="fp32")
    assert names(tmp_path) == ["folder.xml", "lonely.xml", "text.onnx"]


def test_a_device_that_openvino_has_not(tmp_path: Path, static: Path) -> None:
    with pytest.raises(UserError, match="device cuda: OpenVINO .* runs on CPU"):
        load_model(static, "openvino", device="cuda")


def test_after_a_lack_of_memory_the_network_is_prepared_anew(static: Path) -> None:
    class Short:
        def start_async(self, images: list[np.ndarray]) -> None:
            pass

        def wait(self) -> None:
            raise RuntimeError("Check 'ptr' failed:\nFailed to allocate 288000000 bytes of memory")

    runner = OpenVinoRunner(read_model(static), "cpu", "fp32", 1, static)
    images = street(IMAGE_SIZE)[None]
    expected = runner(images)
    runner._local.request = Short()
    with pytest.raises(UserError, match="cannot run .*: Failed to allocate 288000000 bytes"):
        runner(images)
    assert np.array_equal(runner(images), expected)
