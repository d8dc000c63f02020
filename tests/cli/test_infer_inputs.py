"""`t2sda infer` of several inputs, of a list, of standard input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda import load_model
from t2sda.cli.main import main
from tests.full_disk import file_size_limit
from tests.tiny_onnx import SIZE, write_tiny


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b/c.png"]
    paths[1].parent.mkdir()
    dice = np.random.default_rng(0)
    for path in paths:
        Image.fromarray(dice.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    return paths


def infer(tmp_path: Path, *options: object) -> int:
    model = write_tiny(tmp_path / "tiny.onnx")
    fixed = ["--model", str(model), "--output", str(tmp_path / "out"), "--kind", "trainid"]
    return main(["infer", *fixed, *map(str, options)])


def stands_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def label_maps(tmp_path: Path) -> set[str]:
    out = tmp_path / "out"
    return {str(path.relative_to(out)) for path in out.rglob("*_trainid.png")}


def test_several_inputs(tmp_path: Path, photos: list[Path]) -> None:
    assert infer(tmp_path, "--input", *photos) == 0
    assert label_maps(tmp_path) == {"a_trainid.png", "b/c_trainid.png"}


@pytest.mark.parametrize("by_standard_input", [False, True])
def test_a_list(
    by_standard_input: bool, tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{path}\n" for path in photos)
    (tmp_path / "list").write_text(text)
    stands_in(monkeypatch, text.encode())
    source = "-" if by_standard_input else tmp_path / "list"
    assert infer(tmp_path, "--files-from", source) == 0
    assert label_maps(tmp_path) == {"a_trainid.png", "b/c_trainid.png"}


def test_an_image_from_standard_input(
    tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_in(monkeypatch, photos[0].read_bytes())
    assert infer(tmp_path, "--input", "-") == 0
    written = np.asarray(Image.open(tmp_path / "out/stdin_trainid.png"))
    assert np.array_equal(written, load_model(tmp_path / "tiny.onnx").predict(photos[0]))


def test_what_is_said_of_standard_input_names_it(
    tmp_path: Path,
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = photos[0].read_bytes()
    stands_in(monkeypatch, content)
    assert infer(tmp_path, "--input", "-") == 0
    assert "1/1 standard input " in capsys.readouterr().out
    for damaged in (b"", b"junk", content[:300]):
        stands_in(monkeypatch, damaged)
        assert infer(tmp_path, "--input", "-") == 3
        assert "  standard input: cannot be decoded (" in capsys.readouterr().err
    stands_in(monkeypatch, bytes(1 << 20))
    with file_size_limit(1 << 16):
        assert infer(tmp_path, "--input", "-") == 2
    assert "standard input: cannot be kept (File too large)" in capsys.readouterr().err


def test_a_name_that_a_shells_unset_variable_left_empty_is_not_this_folder(
    tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    model = write_tiny(tmp_path.parent / "tiny.onnx")
    for source, output in (("", "out"), ("b", "")):
        arguments = ["--model", str(model), "--input", source, "--output", output]
        assert main(["infer", *arguments]) == 2
    assert main(["merge", ""]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be(
    tmp_path: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        ([], "nothing to segment is named; give --input or --files-from"),
        (["--input", "-", photos[0]], "standard input is one image or video; give it alone"),
        (["--files-from", tmp_path / "none"], "none: no such file"),
    ):
        assert infer(tmp_path, *options) == 2
        assert message in capsys.readouterr().err


def test_an_image_longer_than_results_can_be_is_left_out_and_the_others_are_finished(
    tmp_path: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / "b/long.ppm"
    long.write_bytes(b"P5\n1000001 1\n255\n" + bytes(1_000_001))
    assert infer(tmp_path, "--input", long, photos[1]) == 3
    assert "long_trainid.png: 1x1000001" in capsys.readouterr().err
    assert label_maps(tmp_path) == {"c_trainid.png"}
