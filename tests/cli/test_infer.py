"""`t2sda infer`, as a user calls it."""

from __future__ import annotations

import io
import re
import runpy
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from t2sda import load_model
from t2sda.cli.inferring import Inference
from t2sda.cli.main import main
from t2sda.inference.segmenter import Segmenter
from t2sda.inference.sources import find_sources
from t2sda.inference.video import VideoWriter
from tests.deployed import DYNAMIC, shared_checkpoint, shared_export, street

ROOT = Path(__file__).parents[2]
KINDS_BY_DEFAULT = ("overlay", "color", "trainid")
SUMMARY = {"legend.png", "classes.json", "images.jsonl"}


@pytest.fixture
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_export(tmp_path_factory, DYNAMIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "bonn").mkdir(parents=True)
    Image.fromarray(street((67, 101), 1)).save(folder / "a.png")
    Image.fromarray(street((67, 101), 2)).save(folder / "bonn/a.jpg")
    return folder


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def infer(model_path: Path, source: object, output: Path, *options: str) -> int:
    arguments = ["--model", str(model_path), "--input", str(source), "--output", str(output)]
    return main(["infer", *arguments, *options])


@pytest.mark.parametrize("kind", ["checkpoint", "onnx"])
def test_folder(
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    model_path: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = model_path if kind == "onnx" else shared_checkpoint(tmp_path_factory).parent
    output = tmp_path / "out"
    assert infer(path, photos, output, "--device", "cpu") == 0
    names = {f"{name}_{what}.png" for name in ("a", "bonn/a") for what in KINDS_BY_DEFAULT}
    assert files_below(output) == names | SUMMARY
    trainid = np.asarray(Image.open(output / "a_trainid.png"))
    assert np.array_equal(trainid, load_model(path).predict(photos / "a.png"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"1/2 {photos}/a.png ")  # a pipe gets plain lines
    assert lines[2].startswith("2 images in ")


def test_tool_with_chosen_kinds(
    model_path: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--input", f"{photos}/*.png", "--output", f"{tmp_path}/out", "--kind", "panel"]
    monkeypatch.setattr(sys, "argv", ["infer.py", "--model", str(model_path), *options])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "tools/infer.py"), run_name="__main__")
    assert exit_.value.code == 0
    assert files_below(tmp_path / "out") == {"a_panel.png"} | SUMMARY


def test_unreadable_files_are_listed_and_the_others_finished(
    model_path: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "notes.jpg").write_text("not an image")
    output = tmp_path / "out"
    assert infer(model_path, photos, output, "--kind", "trainid") == 3
    assert files_below(output) == {"a_trainid.png", "bonn/a_trainid.png"} | SUMMARY
    error = capsys.readouterr().err
    assert "1 files were left out" in error
    assert "notes.jpg: cannot be decoded" in error


def test_a_single_unreadable_file(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not an image")
    assert infer(model_path, tmp_path / "notes.jpg", tmp_path / "out") == 3
    assert files_below(tmp_path / "out") == {"images.jsonl"}


def test_a_second_run_ignores_results_and_replaces_them(model_path: Path, photos: Path) -> None:
    for _ in range(2):
        assert infer(model_path, photos, photos / "out", "--kind", "color") == 0
    assert files_below(photos / "out") == {"a_color.png", "bonn/a_color.png"} | SUMMARY


def test_bad_input(
    model_path: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    (tmp_path / "text.onnx").write_text("hello")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    info = onnx.helper.make_tensor_value_info
    values = [info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "foreign", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 20)]
    foreign = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    before = files_below(tmp_path)
    out = tmp_path / "out"
    for model, source, output, message in (
        (model_path, tmp_path / "empty", out, "empty: no image or video in this folder"),
        (model_path, tmp_path / "*.png", out, "*.png: no file matches"),
        (model_path, photos, photos, "results would lie among the images"),
        (
            model_path,
            photos,
            tmp_path / "file",
            "file (File exists); choose another folder with --output",
        ),
        (
            model_path,
            photos,
            tmp_path / "file/out",
            "file/out (Not a directory); choose another folder with --output",
        ),
        (tmp_path / "file", photos, out, "file: not a readable checkpoint"),
        (tmp_path / "text.onnx", photos, out, "text.onnx: not an ONNX file"),
        (tmp_path / "foreign.onnx", photos, out, "takes float32 of shape (1,)"),
        (tmp_path / "nowhere", photos, out, "nowhere: no such file or folder"),
    ):
        assert infer(model, source, output) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert len(captured.err.splitlines()) == 1
    assert files_below(tmp_path) == before
    assert not out.exists()


def test_a_kind_that_is_none(
    model_path: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        infer(model_path, photos, tmp_path / "out", "--kind", "overlay,colored")
    assert exit_.value.code == 2
    message = "no kind 'colored'; known: "
    assert message in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_written_in_the_middle(
    model_path: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    (output / "bonn/a_color.png").mkdir(parents=True)  # stands in the way of the second image
    assert infer(model_path, photos, output, "--kind", "color") == 2
    assert "a_color.png: cannot be written" in capsys.readouterr().err
    assert files_below(output) == {"a_color.png", "images.jsonl"}
    assert np.asarray(Image.open(output / "a_color.png")).shape == (67, 101, 3)


def test_images_videos_and_frames_are_counted(
    model_path: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with VideoWriter(photos / "drive.mp4", Fraction(12), Fraction(1, 12)) as writer:
        for pts in range(4):
            writer.write(street((64, 96), pts), pts)

    def conclusion(source: object, name: str) -> str:
        assert infer(model_path, source, tmp_path / name, "--kind", "color") == 0
        return capsys.readouterr().out.splitlines()[-1]

    found = re.fullmatch(
        r"2 images, 1 video of 4 frames in (.*) s \((.*) a second\); results in .*",
        conclusion(photos, "all"),
    )
    assert found is not None
    seconds, pace = map(float, found.groups())
    assert 6 / (seconds + 0.06) <= pace + 0.06  # both are rounded
    assert pace - 0.06 <= 6 / max(seconds - 0.06, 1e-9)
    assert conclusion(photos / "a.png", "one").startswith("1 image in ")
    assert conclusion(photos / "drive.mp4", "video").startswith("1 video of 4 frames in ")


class Terminal(io.StringIO):
    """What a terminal is told."""

    def isatty(self) -> bool:
        return True


def test_a_line_that_changes_on_a_terminal(model_path: Path, photos: Path, tmp_path: Path) -> None:
    stream = Terminal()
    inference = Inference(Segmenter(load_model(model_path)), tmp_path, ["trainid"], stream)
    assert inference.run(find_sources(str(photos), tmp_path / "out").sources) == 0
    *changes, conclusion = stream.getvalue().split("\r\x1b[K")
    assert changes[-1].startswith("2/2  ")
    assert changes[-1].endswith("0:00 left  a.jpg")
    assert conclusion.startswith("2 images in ")
