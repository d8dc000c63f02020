"""Exported files with numpy, Pillow, OpenCV and their runtime alone; imports are blocked here.

`tools/runtime_check.sh` does the same in a fresh environment of `requirements-runtime.txt`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda import load_model
from tests.deployed import DYNAMIC, STATIC, shared_export, street

ALLOWED = ("t2sda", "numpy", "PIL", "cv2", "onnxruntime", "openvino")
BLOCKED = """
import importlib.metadata, json, sys

ALLOWED = set({allowed!r})
installed = importlib.metadata.packages_distributions()


class Refuse:
    '''Every installed package but those that a runtime has is as if it were not there.'''

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in installed and top not in ALLOWED and top not in NEEDED_BY_ONNXRUNTIME:
            raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)
        return None


NEEDED_BY_ONNXRUNTIME = {{"google", "flatbuffers", "packaging"}}
sys.meta_path.insert(0, Refuse())
"""


def without_the_rest(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program where only ALLOWED and the standard library can be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED.format(allowed=ALLOWED) + program, *arguments],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_three_lines_of_python(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, runtime: str
) -> None:
    path = shared_export(tmp_path_factory, STATIC)
    Image.fromarray(street((67, 101))).save(tmp_path / "a.png")
    program = """
from t2sda import load_model
model = load_model(sys.argv[1], sys.argv[3])
labels = model.predict(sys.argv[2])
import numpy
numpy.save(sys.argv[4], labels)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    out = tmp_path / "labels.npy"
    done = without_the_rest(program, str(path), str(tmp_path / "a.png"), runtime, str(out))
    assert done.returncode == 0, done.stderr
    expected = load_model(path, runtime).predict(tmp_path / "a.png")
    assert np.array_equal(np.load(out), expected)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"torch", "timm", "fvcore", "iopath", "yaml", "rich", "matplotlib", "onnx"}


def test_infer_as_in_the_full_environment(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = shared_export(tmp_path_factory, DYNAMIC)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        Image.fromarray(street((67, 101), index)).save(tmp_path / f"photos/{index}.png")
    words = ["infer", "--model", str(path), "--input", str(tmp_path / "photos"), "--output"]
    kinds = ["--kind", "overlay,color,trainid,panel"]
    program = "from t2sda.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = without_the_rest(program, *words, str(tmp_path / "out"), *kinds)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("3 images in ")
    for index in range(3):
        labels = np.asarray(Image.open(tmp_path / f"out/{index}_trainid.png"))
        expected = load_model(path).predict(tmp_path / f"photos/{index}.png")
        assert np.array_equal(labels, expected)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"0_overlay.png", "1_color.png", "2_panel.png", "legend.png"} <= names


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--config-file", "quickstart.yaml"],
        ["export", "onnx", "run", "--output", "m.onnx"],
        ["infer", "--model", ".", "--input", "a.png", "--output", "out"],
    ],
)
def test_what_needs_more_says_so(words: list[str], tmp_path: Path) -> None:
    Image.fromarray(street((67, 101))).save(tmp_path / "a.png")
    program = f"""
import os
os.chdir({str(tmp_path)!r})
from t2sda.cli.main import main; sys.exit(main(sys.argv[1:]))"""
    done = without_the_rest(program, *words)
    assert done.returncode == 2
    assert "this needs the package '" in done.stderr
    assert "which is not installed here" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_checkpoint_says_so_in_python(tmp_path: Path) -> None:
    (tmp_path / "run.pth").touch()
    program = """
from t2sda import load_model
try:
    load_model(sys.argv[1])
except ValueError as error:
    print(error)
"""
    done = without_the_rest(program, str(tmp_path / "run.pth"))
    assert "run.pth: a checkpoint; this needs the package '" in done.stdout
    assert "`t2sda export` wrote" in done.stdout


def test_loading_a_file_imports_little_and_is_fast(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_export(tmp_path_factory, STATIC)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load_time", str(path), "--rounds", "3", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = json.loads(done.stdout)
    with capsys.disabled():
        print("\nload_model of a small ONNX file:", row)
    # 145 of ours and 3.9 seconds before, when checkpoints and exports shared one module.
    assert row["our modules"] <= 40
    assert row["CPU s"] < 1  # of the clock it is less, unless others keep the machine busy
    assert row["heavy"] == ["onnxruntime"]
