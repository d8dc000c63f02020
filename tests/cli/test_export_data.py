"""Sets and folders that exports calibrate on and score on, and mistakes told before the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda import load_model
from t2sda.cli.export_data import calibration_images
from t2sda.cli.main import main
from t2sda.data.catalog import DATASETS
from t2sda.data.datasets import DrawnStreets
from t2sda.data.packing import pack_dataset
from t2sda.errors import UserError
from t2sda.export.engines import ExportedEngine
from t2sda.export.tensorrt import BuiltEngine
from tests.deployed import DYNAMIC, STATIC, shared_export, street, write_checkpoint

QUAY = """
name: quay
root: quay
images: images/*.png
labels: labels/{stem}.png
taxonomy: cityscapes_19
"""
SIZE = ("--size", "64", "96")


@pytest.fixture
def quay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset file of two images; what is registered from it is forgotten."""
    monkeypatch.setattr(DATASETS, "_components", dict(DATASETS._components))
    for folder in ("images", "labels"):
        (tmp_path / "quay" / folder).mkdir(parents=True)
    for index in range(2):
        Image.fromarray(street((64, 96), index)).save(tmp_path / f"quay/images/{index}.png")
        label = np.full((64, 96), index, np.uint8)
        Image.fromarray(label).save(tmp_path / f"quay/labels/{index}.png")
    (tmp_path / "quay.yaml").write_text(QUAY)
    return tmp_path / "quay.yaml"


@pytest.mark.parametrize("said_by", ["the run", "--file"])
def test_datasets_of_yaml_files(
    quay: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], said_by: str
) -> None:
    settings = ("DATASETS.FILES", f"[{quay}, nowhere.yaml]") if said_by == "the run" else ()
    checkpoint = write_checkpoint(tmp_path / "run", *settings)
    words = ["export", "onnx", str(checkpoint), "--output", str(tmp_path / "m.onnx"), *SIZE]
    file = [] if settings else ["--file", str(quay)]
    int8 = ["--precision", "int8", "--max-changed", "1", "--calibration", "quay"]
    assert main([*words, *file, *int8, "--evaluate", "quay", "--num-evaluated", "1"]) == 0
    text = capsys.readouterr().out
    assert "calibrating on 2 of 2 images" in text
    assert "mIoU on 1 images of quay" in text


def test_calibration_takes_images_and_says_which(
    quay: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = quay.parent / "quay/images"
    (images / "drive.mp4").write_bytes(b"")  # a video among them is not in the way
    assert len(calibration_images(str(images), 1)) == 1
    assert capsys.readouterr().out == (
        f"calibrating on 1 of 2 images, from {images}/0.png to {images}/0.png\n"
    )
    assert len(calibration_images(f"{images}/*.png", 9)) == 2
    pack_dataset(DrawnStreets("s", "hazy", 1, 3, (64, 96)), (64, 96), tmp_path / "packed")
    assert len(calibration_images(str(tmp_path / "packed/images"), 2)) == 2
    with pytest.raises(UserError, match=r"--calibration .*mp4: holds videos alone"):
        calibration_images(str(images / "drive.mp4"), 1)
    with pytest.raises(UserError, match=r"--calibration streets_hazy_vall: no such .*streets_hazy"):
        calibration_images("streets_hazy_vall", 1)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evaluate", "rendered_vall"], "no dataset is called 'rendered_vall'"),
        (["--evaluate", "unlabelled"], "has no labels"),
        (["--num-evaluated", "3"], "--num-evaluated: there is no --evaluate"),
        (["--num-calibration", "3"], "--num-calibration: there is no --calibration"),
    ],
)
def test_mistakes_are_told_before_the_work(
    quay: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    options: list[str],
    message: str,
) -> None:
    text = QUAY.replace("name: quay", "name: unlabelled").replace("labels: labels/{stem}.png\n", "")
    quay.write_text(text)
    checkpoint = write_checkpoint(tmp_path / "run")

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("exported first")

    monkeypatch.setattr("t2sda.cli.export.export_onnx", too_late)
    output = tmp_path / ("m.onnx" if kind == "onnx" else "m.xml")
    words = ["export", kind, str(checkpoint), "--output", str(output), *SIZE]
    assert main([*words, "--file", str(quay), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_size_is_asked_for_before_anything_is_quantised(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("quantised first")

    monkeypatch.setattr("t2sda.cli.export.quantize_onnx", too_late)
    source = shared_export(tmp_path_factory, DYNAMIC)
    words = ["export", "openvino", str(source), "--output", str(tmp_path / "m.xml")]
    int8 = ["--precision", "int8", "--calibration", "streets_hazy_val"]
    assert main([*words, *int8]) == 2
    assert "takes any size; say --size HEIGHT WIDTH, or --dynamic" in capsys.readouterr().err


def test_bf16_is_refused_before_the_export_where_it_cannot_run(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("t2sda.runtime.openvino_file.cpu_capabilities", lambda core: ["FP32"])
    source = shared_export(tmp_path_factory, STATIC)
    words = ["export", "openvino", str(source), "--output", str(tmp_path / "m.xml")]
    assert main([*words, "--precision", "bf16"]) == 2
    assert "this CPU has no instructions for it" in capsys.readouterr().err


def test_engines_are_scored_where_they_run(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = shared_export(tmp_path_factory, STATIC)
    words = ["export", "tensorrt", str(source), "--output", str(tmp_path / "m.engine")]
    scored = ["--evaluate", "streets_hazy_val", "--num-evaluated", "2"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([*words, *scored]) == 2
    assert "--evaluate: no GPU is usable here" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    built = BuiltEngine(b"", (), inspected=False, precision="fp32", version="1.7")
    unverified = ExportedEngine(tmp_path / "m.engine.unverified", built, None)
    monkeypatch.setattr("t2sda.export.exporters.export_engine", lambda *_: unverified)
    assert main([*words, *scored]) == 0
    assert "not scored on streets_hazy_val: that takes --verify-only" in capsys.readouterr().out
    monkeypatch.setattr("t2sda.export.exporters.verify_engine", lambda *_: "well")
    file = load_model(source)
    monkeypatch.setattr("t2sda.cli.export.load_model", lambda *_, **__: file)
    assert main([*words, *scored, "--verify-only"]) == 0
    assert "mIoU on 2 images of streets_hazy_val" in capsys.readouterr().out
