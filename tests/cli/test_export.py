"""`t2sda export onnx`, as a user calls it."""

from __future__ import annotations

import hashlib
import runpy
import sys
from pathlib import Path

import pytest
import torch
from fvcore.common.config import CfgNode

from t2sda import load_model
from t2sda.cli.exporting import default_image_size
from t2sda.cli.main import main
from t2sda.config import dump_config, load_config
from t2sda.runtime.checkpoints import open_checkpoint
from t2sda.runtime.predictor import FilePredictor
from tests.deployed import DYNAMIC, shared_checkpoint, shared_export, street, write_checkpoint

ROOT = Path(__file__).parents[2]
SIZE = ("--size", "64", "96")
ADAPTING = ("DATASETS.TARGET", "streets_hazy_train", "HOOKS.NAMES", "[EmaTeacher]")


@pytest.fixture
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_checkpoint(tmp_path_factory).parent


def test_run_folder_to_static_file(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new folder/student.onnx"
    arguments = ["export", "onnx", str(run_dir), "--output", str(output), "--size", "64", "96"]
    assert main(arguments) == 0
    assert "verified in ONNX Runtime against PyTorch: logits differ" in capsys.readouterr().out
    assert [path.name for path in output.parent.iterdir()] == ["student.onnx"]

    model = load_model(output)
    assert isinstance(model, FilePredictor)
    assert model.metadata.image_size == (64, 96)
    assert model.metadata.output_kind == "labels"
    config_text = dump_config(CfgNode(open_checkpoint(run_dir).config))
    assert model.metadata.origin == {
        "run": run_dir.name,
        "iteration": 1,
        "branch": "student",
        "config_sha256": hashlib.sha256(config_text.encode()).hexdigest(),
    }


def test_tool_takes_the_size_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_checkpoint(tmp_path / "run", "EVALUATION.IMAGE_SIZE", "[64, 128]")
    output = tmp_path / "student.onnx"
    arguments = [str(checkpoint), "--output", str(output), "--output-kind", "logits"]
    monkeypatch.setattr(sys, "argv", ["export_onnx.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "tools/export_onnx.py"), run_name="__main__")
    assert exit_.value.code == 0
    model = load_model(output)
    assert isinstance(model, FilePredictor)
    assert model.metadata.image_size == (64, 128)
    assert model.metadata.output_kind == "logits"


@pytest.mark.parametrize(
    ("settings", "image_size"),
    [
        (("EVALUATION.IMAGE_SIZE", "[64, 128]"), (64, 128)),
        (("DATA.SOURCE_SIZE", "[96, 192]", "DATA.CROP_SIZE", "[64, 64]"), (96, 192)),
        ((), (256, 512)),  # of the drawn streets
    ],
)
def test_default_size(settings: tuple[str, ...], image_size: tuple[int, int]) -> None:
    assert default_image_size(load_config(None, settings)) == image_size


def test_size_is_asked_for_where_the_run_does_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = write_checkpoint(tmp_path / "run", "DATASETS.SOURCE", "rendered_train")
    assert main(["export", "onnx", str(checkpoint), "--output", str(tmp_path / "m.onnx")]) == 2
    assert "Say it with --size HEIGHT WIDTH" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_bad_input(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("hello")
    output = tmp_path / "m.onnx"
    for checkpoint, target, message in (
        (tmp_path / "nowhere", output, "nowhere: no such file or folder"),
        (tmp_path, output, "no checkpoint_*.pth in this folder"),
        (tmp_path / "file", output, "file: not a readable checkpoint: it is no file of torch"),
        (run_dir, tmp_path, "is a folder; --output names the file to write"),
        (
            run_dir,
            tmp_path / "file/m.onnx",
            "file (File exists); choose another folder with --output",
        ),
    ):
        assert main(["export", "onnx", str(checkpoint), "--output", str(target)]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert len(captured.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "options", [["--size", "0", "64"], ["--size", "a", "b"], ["--size", "64", "64", "--dynamic"]]
)
def test_sizes_that_are_none(run_dir: Path, tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["export", "onnx", str(run_dir), "--output", str(tmp_path / "m.onnx"), *options])
    assert exit_.value.code == 2


def test_format_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export"]) == 2
    assert "usage: t2sda export onnx" in capsys.readouterr().err
    assert main(["export", "--help"]) == 0
    assert "usage: t2sda export onnx" in capsys.readouterr().out


def test_int8_of_the_teacher_and_openvino_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_checkpoint(tmp_path / "run", "META_ARCH.NAME", "SelfTraining", *ADAPTING)
    int8, size = tmp_path / "int8.onnx", ("--size", "64", "96")
    calibration = ("--calibration", "streets_hazy_val", "--num-calibration", "3")
    options = (*size, "--precision", "int8", "--branch", "teacher", "--max-changed", "0.2")
    words = ["export", "onnx", str(run), "--output", str(int8), *options, *calibration]
    assert main([*words, "--evaluate", "streets_hazy_val", "--num-evaluated", "2"]) == 0
    text = capsys.readouterr().out
    assert "layers in int8; left float" in text
    assert "mIoU on 2 images of streets_hazy_val" in text
    model = load_model(int8)
    assert isinstance(model, FilePredictor)
    assert (model.metadata.precision, model.metadata.origin["branch"]) == ("int8", "teacher")

    words = ["export", "openvino", str(int8), "--output", str(tmp_path / "int8.xml")]
    assert main([*words, "--precision", "int8"]) == 0
    assert load_model(tmp_path / "int8.xml").predict(street((64, 96))).shape == (64, 96)
    assert main([*words, "--precision", "int8", "--calibration", "streets_hazy_val"]) == 2
    assert "is in int8 already; leave out --calibration" in capsys.readouterr().err


@pytest.mark.slow
def test_int8_openvino_of_a_dynamic_file_at_a_size(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path / "int8.xml"
    words = ["export", "openvino", str(shared_export(tmp_path_factory, DYNAMIC)), *SIZE]
    calibration = ("--calibration", "streets_hazy_val", "--num-calibration", "2")
    options = ("--precision", "int8", *calibration, "--max-changed", "0.3")
    assert main([*words, "--output", str(output), *options]) == 0
    model = load_model(output)
    assert isinstance(model, FilePredictor)
    assert (model.metadata.precision, model.metadata.image_size) == ("int8", (64, 96))


def test_openvino_of_a_run_and_tensorrt_of_its_file(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xml, onnx_path = tmp_path / "m.xml", tmp_path / "m.onnx"
    assert main(["export", "openvino", str(run_dir), "--output", str(xml), *SIZE]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert main(["export", "onnx", str(run_dir), "--output", str(onnx_path), *SIZE]) == 0
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX")
    words = ["export", "tensorrt", str(onnx_path), "--output", str(tmp_path / "m.engine")]
    capsys.readouterr()
    assert main([*words, "--target", "tensorrt-rtx", "--inspect"]) == 0
    text = capsys.readouterr().out
    assert "CONVOLUTION" in text
    if not torch.cuda.is_available():
        assert "m.engine.unverified" in text
        assert "--verify-only" in text


def test_options_that_do_not_fit_together(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "m.onnx")]
    for words, message in (
        (["onnx", str(run_dir), *output, "--precision", "int8"], "needs --calibration DIR|DATASET"),
        (["onnx", str(run_dir), *output, "--calibration", "x"], "nothing to calibrate"),
        (["openvino", str(run_dir), *output, *SIZE], "must end in .xml"),
        (["onnx", str(run_dir), *output, "--branch", "teacher"], "holds no teacher"),
    ):
        assert main(["export", *words]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", "tensorrt", "m.onnx", *output, "--profile", "1x2", "1x2x3", "1x2x3"])
    assert "'1x2' is no batch like 1x512x1024" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
