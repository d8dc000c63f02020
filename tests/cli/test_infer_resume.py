"""`t2sda infer --resume` takes what is of these images and this model, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from t2sda.cli.inferring import Inference
from t2sda.cli.main import main
from tests.tiny_onnx import WEIGHTS, tiny_model, write_tiny

KIND = ("--kind", "trainid,color")
EXTERNAL = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}


def infer(model: Path, source: Path | str, output: Path, *options: str) -> int:
    words = ["--model", str(model), "--input", str(source), "--output", str(output)]
    return main(["infer", *words, *(options or KIND), "--resume"])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "model.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return save_streets(tmp_path / "photos", 0, 1)


def save_streets(folder: Path, *seeds: int) -> Path:
    folder.mkdir()
    for number, seed in enumerate(seeds):
        noise(seed).save(folder / f"{number}.bmp")  # as many bytes each
    return folder


def noise(seed: int) -> Image.Image:
    numbers = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    return Image.fromarray(numbers)


def labels(output: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(output / f"{name}_trainid.png"))


def test_an_image_of_another_folder_is_another_image(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others, out = save_streets(tmp_path / "others", 2, 3), tmp_path / "out"
    for number in range(2):  # the same name, size and time
        time = (photos / f"{number}.bmp").stat().st_mtime_ns
        os.utime(others / f"{number}.bmp", ns=(time, time))
    assert infer(model, photos, out) == 0
    first = labels(out, "0")
    capsys.readouterr()
    assert infer(model, others, out) == 0
    assert "earlier" not in capsys.readouterr().out
    assert not np.array_equal(labels(out, "0"), first)
    assert infer(model, others, out) == 0
    assert "2 finished earlier" in capsys.readouterr().out


@pytest.mark.parametrize("take_the_place", ["moved", "copied", "linked"])
def test_an_image_in_the_place_of_another_is_another_image(
    take_the_place: str,
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    others, out = save_streets(tmp_path / "others", 2), tmp_path / "out"
    old, new = photos / "0.bmp", others / "0.bmp"
    os.utime(new, ns=(old.stat().st_mtime_ns,) * 2)
    assert infer(model, photos, out) == 0
    before = labels(out, "0")
    if take_the_place == "moved":
        new.replace(old)
    elif take_the_place == "copied":
        shutil.copy2(new, old)
    else:
        old.unlink()
        old.symlink_to(new)
    capsys.readouterr()
    assert infer(model, photos, out) == 0
    assert "1 finished earlier" in capsys.readouterr().out  # the other one
    assert not np.array_equal(labels(out, "0"), before)


def test_a_model_is_its_content_and_not_its_name(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert infer(model, photos, out) == 0
    renamed = model.rename(tmp_path / "newest.onnx")
    assert infer(renamed, photos, out) == 0
    assert "2 finished earlier" in capsys.readouterr().out
    moved = Path(shutil.move(renamed, tmp_path / "elsewhere.onnx"))
    assert infer(moved, photos, out) == 0
    assert "2 finished earlier" in capsys.readouterr().out


def test_weights_in_another_file_belong_to_the_model(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = (*KIND, "--taxonomy", "cityscapes_19")
    out = tmp_path / "out"
    for name, weights in (("a", WEIGHTS), ("b", WEIGHTS[::-1].copy())):
        (tmp_path / name).mkdir()
        graph = tiny_model(
            weights=weights, properties={"tool": "other"}
        )  # of others: nothing vouches for it
        onnx.save(graph, tmp_path / name / "m.onnx", **EXTERNAL)
    used = tmp_path / "a/m.onnx"
    assert infer(used, photos, out, *described) == 0
    assert infer(used, photos, out, *described) == 0
    assert "2 finished earlier" in capsys.readouterr().out
    shutil.copy2(tmp_path / "b/w.data", tmp_path / "a/w.data")
    assert infer(used, photos, out, *described) == 2
    assert "made with other settings: model_sha256 was" in capsys.readouterr().err


@pytest.mark.parametrize("kinds", ["color,trainid", "trainid,color,trainid", " color , trainid"])
def test_the_order_of_kinds_does_not_matter(
    kinds: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(model, photos, tmp_path / "out") == 0
    assert infer(model, photos, tmp_path / "out", "--kind", kinds) == 0
    assert "2 finished earlier" in capsys.readouterr().out
    assert infer(model, photos, tmp_path / "out", "--kind", "color") == 2
    message = "made with other settings: kinds was ['color', 'trainid'], is ['color']; choose"
    assert message in capsys.readouterr().err


def test_a_path_that_is_too_long_leaves_its_image_out(
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    deep = photos
    while len(str(deep)) < 4096 - 120:  # paths of results are longer than those of images
        deep = deep / ("d" * 100)
    deep.mkdir(parents=True)
    shutil.copy2(photos / "0.bmp", deep / "z.bmp")
    out = tmp_path / ("o" * 200)
    for _ in range(2):
        assert infer(model, photos, out) == 3
        text = capsys.readouterr()
        assert "1 files were left out:" in text.err
        assert "z_trainid.png: cannot be written (File name too long)" in text.err
        assert labels(out, "1").shape == (64, 96)
    assert "2 finished earlier" in text.out


def test_a_further_image_is_the_only_work(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for source in (photos, f"{photos}/*"):
        assert infer(model, source, out) == 0
    for name in ("0a.bmp", "new/0.bmp", "z.bmp"):
        (photos / name).parent.mkdir(exist_ok=True)
        noise(5).save(photos / name)
        capsys.readouterr()
        assert infer(model, photos, out) == 0
        assert "1 image in" in capsys.readouterr().out
    assert {"0", "1", "0a", "new/0", "z"} == json.loads((out / "classes.json").read_text())[
        "images"
    ].keys()


@pytest.mark.parametrize("left", ["nothing", "an empty file", "a folder"])
def test_a_result_that_is_not_there_any_more_is_made_anew(
    left: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert infer(model, photos, out) == 0
    before = labels(out, "0")
    result = out / "0_trainid.png"
    if left == "an empty file":
        result.write_bytes(b"")
    else:
        result.unlink()
    if left == "a folder":
        result.mkdir()
    capsys.readouterr()
    code = infer(model, photos, out)
    said = capsys.readouterr()
    if left == "a folder":  # nothing of the user's is removed
        assert code != 0
        assert "0_trainid.png" in said.err
        return
    assert code == 0
    assert "1 finished earlier" in said.out
    assert np.array_equal(labels(out, "0"), before)


def test_legend_and_shares_are_never_those_of_another_run(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    summary = out / "legend.png", out / "classes.json"
    assert infer(model, photos, out) == 0
    assert all(path.is_file() for path in summary)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "9.png").write_bytes((photos / "0.bmp").read_bytes()[:99])
    assert infer(model, broken, out) == 3
    assert not any(path.exists() for path in summary)
    assert infer(model, photos, out) == 0
    assert all(path.is_file() for path in summary)
    monkeypatch.setattr(Inference, "_work", interrupted)
    assert infer(model, photos, out) == 130
    assert not any(path.exists() for path in summary)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "line",
    [
        '{"name": ["0"], "pixels": [1]}',
        '{"name": "0", "pixels": "many"}',
        '{"name": "0", "pixels": [1, 2]}',
        '{"name": "0", "pixels": [-1, 1.5, null]}',
        f'{{"name": "0", "pixels": {[1 << 70] * 19}}}',
        f'{{"name": "0", "pixels": {[1] * 19}, "stamp": {{}}}}',
    ],
)
def test_an_edited_line_of_the_record_does_not_count(
    line: str, model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert infer(model, photos, out) == 0
    record = out / "images.jsonl"
    record.write_text(record.read_text().splitlines()[0] + "\n" + line + "\n")
    capsys.readouterr()
    assert infer(model, photos, out) == 0
    assert "earlier" not in capsys.readouterr().out
