"""`t2sda evaluate` from the command line: every runtime, every option, what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import t2sda
from t2sda.cli.main import main
from t2sda.data.catalog import DatasetSpec, DrawnStreetsSpec
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.checkpoint import load_checkpoint
from t2sda.evaluation.entries import Entry, Protocol, read_entries
from t2sda.evaluation.views import protocol_for
from t2sda.inference.results import label_ids
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.runtime.identity import model_digest
from t2sda.runtime.letterbox import Frame, Letterbox
from t2sda.runtime.loading import load_model
from t2sda.runtime.predictor import Predictor
from t2sda.training.scoring import student_predictor
from tests.components import components_restored
from tests.deployed import (
    DYNAMIC,
    STATIC,
    shared_checkpoint,
    shared_export,
    write_checkpoint,
)
from tests.integration.conftest import ROOT, environment
from tests.tiny_onnx import WEIGHTS, metadata, tiny_model, write_tiny

SIZE = (96, 160)
WITH_TEACHER = (
    *("META_ARCH.NAME", "T2SDA", "HOOKS.NAMES", "[EmaTeacher]", "TRANSLATION.NAME", "FDA"),
    *("DATASETS.TARGET", "tiny_b"),
)
PLUGIN = """
from t2sda.data.catalog import DrawnStreetsSpec, register_dataset
register_dataset(DrawnStreetsSpec("tiny_five", "hazy", 3, 5, (96, 160)))
"""


@pytest.fixture(autouse=True)
def _tiny_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with components_restored():
        for name, seed in (("tiny_a", 3), ("tiny_b", 4)):
            t2sda.datasets.register(DrawnStreetsSpec(name, "hazy", seed, 3, SIZE))
        yield


def entries_in(path: Path) -> list[Entry]:
    return read_entries(path)


def message(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_run_is_scored_with_every_option_and_the_scores_are_kept_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "run", *WITH_TEACHER)
    options = ["--window", "64", "96", "--step", "32", "64", "--flip", "--scales", "0.75", "1"]
    data = ["--data", "tiny_a", "tiny_b"]
    assert main(["evaluate", "run", *data]) == 0
    assert main(["evaluate", "run", *data, *options, "--boundary", "--calibration"]) == 0
    assert main(["evaluate", "run", "--data", "tiny_a", "--branch", "teacher"]) == 0
    assert main(["evaluate", "run", "--data", "tiny_a"]) == 0  # replaces the first
    entries = entries_in(tmp_path / "run/evaluation.json")
    assert [(e.scores.dataset, e.branch, bool(e.scores.protocol.window)) for e in entries] == [
        ("tiny_b", "student", False),
        ("tiny_a", "student", True),
        ("tiny_b", "student", True),
        ("tiny_a", "teacher", False),
        ("tiny_a", "student", False),
    ]
    last, windowed = entries[-1], entries[1]
    assert (last.model, last.iteration, last.runtime) == ("checkpoint_0000001.pth", 1, "torch")
    assert last.digest == f"sha256:{model_digest(checkpoint)}"
    protocol = windowed.scores.protocol
    assert (protocol.window, protocol.step, protocol.flip) == ((64, 96), (32, 64), True)
    assert protocol.scales == (0.75, 1.0)
    assert windowed.scores.boundary_iou is not None
    assert windowed.scores.calibration is not None
    expected = t2sda.evaluate(
        checkpoint,
        "tiny_a",
        window=(64, 96),
        step=(32, 64),
        flip=True,
        scales=(0.75, 1.0),
        boundary=True,
        calibration=True,
    )
    assert str(windowed.scores) == str(expected)
    shown = capsys.readouterr().out
    for text in (
        "tiny_a: 3 images, as they are, windows of 64x96 every 32x64, scales 0.75, 1, flipped",
        *("mIoU16", "mIoU13", "tail classes", "boundary mIoU", "calibration error"),
    ):
        assert text in shown


def test_a_run_that_was_scored_by_windows_is_scored_so_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = ["EVALUATION.WINDOW", "[64, 96]", "EVALUATION.STEP", "[32, 64]"]
    write_checkpoint(tmp_path / "run", *windows)
    write_checkpoint(tmp_path / "plain")
    asked = ["--window", "64", "96", "--step", "32", "64"]
    for words in (["run"], ["plain", *asked], ["run", "--window", "96", "160"]):
        assert main(["evaluate", words[0], "--data", "tiny_a", *words[1:]]) == 0
    (by_run, whole), (by_hand,) = (
        [entry.scores for entry in entries_in(tmp_path / name / "evaluation.json")]
        for name in ("run", "plain")
    )
    assert by_run.protocol == Protocol(None, (64, 96), (32, 64)) == by_hand.protocol
    assert by_run.confusion == by_hand.confusion != whole.confusion
    cfg = load_checkpoint(tmp_path / "run/checkpoint_0000001.pth").cfg
    model = build_segmentation_model(cfg, 19)
    predictor = student_predictor(cfg, model, CITYSCAPES_19, torch.device("cpu"), 1)
    assert protocol_for(predictor) == by_run.protocol  # evaluations of the training


class TinyFormula(Predictor):
    """What the file of `tests.tiny_onnx` computes."""

    taxonomy = CITYSCAPES_19
    runtime = "formula"
    letterbox = Letterbox()

    def _labels(self, frames: list[Frame]) -> list[np.ndarray]:
        return [own.argmax(axis=0).astype(np.uint8) for own in self._logits(frames)]

    def _logits(self, frames: list[Frame]) -> list[np.ndarray]:
        images = [frame.image.astype(np.float32) for frame in frames]
        return [np.einsum("cd,hwd->chw", WEIGHTS[:, :, 0, 0], image) for image in images]


def test_files_are_scored_and_compared_with_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("labels", "logits"):
        write_tiny(
            tmp_path / f"{kind}.onnx",
            tiny_model(
                kind,
                size=("height", "width"),
                properties=metadata(kind, image_size=None).to_properties(),
            ),
        )
    models = ["labels.onnx", "logits.onnx"]
    assert main(["evaluate", *models, "--data", "tiny_a", "--output", "sub/scores.json"]) == 0
    shown = capsys.readouterr().out
    assert "logits.onnx - labels.onnx: mIoU +0.0 (95 % of resamples of 3 blocks: +0.0" in shown
    expected = t2sda.evaluate(TinyFormula(), "tiny_a")
    for name, entry in zip(models, entries_in(tmp_path / "sub/scores.json"), strict=True):
        assert entry.scores.confusion == expected.confusion
        assert (entry.runtime, entry.iteration, entry.branch) == ("onnxruntime", 1, None)
        assert entry.model == str((tmp_path / name).resolve())
        assert entry.digest == f"sha256:{model_digest(tmp_path / name)}"
    windows = ["--window", "64", "96", "--flip", "--scales", "0.5", "1", "--calibration"]
    assert (
        main(["evaluate", "logits.onnx", "--data", "tiny_a", "--output", "w.json", *windows]) == 0
    )
    (entry,) = entries_in(tmp_path / "w.json")
    options: dict[str, Any] = {"window": (64, 96), "flip": True, "scales": (0.5, 1.0)}
    formula = t2sda.evaluate(TinyFormula(), "tiny_a", calibration=True, **options)
    assert entry.scores.mean_iou == pytest.approx(formula.mean_iou, abs=1e-3)
    assert entry.scores.calibration is not None
    assert formula.calibration is not None
    assert entry.scores.calibration.ece == pytest.approx(formula.calibration.ece, abs=1e-4)


@pytest.mark.slow
def test_an_export_scores_as_its_checkpoint(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In float32, within a tenth of a point."""
    pytest.importorskip("openvino", reason="needs the extra openvino")
    from t2sda.export.openvino import export_openvino

    exports = [shared_export(tmp_path_factory, kind) for kind in (DYNAMIC, STATIC)]
    export_openvino(exports[1], tmp_path / "student.xml", precision="fp32")
    models = [shared_checkpoint(tmp_path_factory), *exports, tmp_path / "student.xml"]
    arguments = ["--data", "tiny_a", "--output", "scores.json"]
    assert main(["evaluate", *map(str, models), *arguments]) == 0
    entries = entries_in(tmp_path / "scores.json")
    assert [entry.runtime for entry in entries] == [
        *("torch", "onnxruntime", "onnxruntime", "openvino")
    ]
    assert entries[-1].model == "student.xml"
    means = [entry.scores.mean_iou for entry in entries]
    assert means[0] > 0
    np.testing.assert_allclose(means, means[0], atol=1e-3)


def test_predictions_are_label_ids_as_the_server_takes_them(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint = shared_checkpoint(tmp_path_factory)
    dataset = t2sda.datasets.open("tiny_a")
    for index in range(2):
        sample = dataset.load(index)
        for folder, content in (("images", sample.image), ("labels", sample.label)):
            path = tmp_path / "city" / folder / f"aachen/a_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert content is not None
            cv2.imwrite(str(path), content[..., ::-1] if content.ndim == 3 else content)
    spec = DatasetSpec("city", "city", "images/*/*.png", "labels/{1}/{stem}.png", CITYSCAPES_19)
    t2sda.datasets.register(spec)
    arguments = [str(checkpoint), "--data", "city", "--output", "s.json", "--predictions", "out"]
    assert main(["evaluate", *arguments]) == 0
    (entry,) = entries_in(tmp_path / "s.json")
    assert [image.name for image in entry.scores.images] == [
        f"images/aachen/a_{index}.png" for index in range(2)
    ]
    model = load_model(checkpoint)
    for index in range(2):
        found = cv2.imread(f"out/city/images/aachen/a_{index}.png", cv2.IMREAD_UNCHANGED)
        expected = label_ids(model.predict(dataset.load(index).image), CITYSCAPES_19)
        assert found is not None
        assert (found == expected).all()


@pytest.mark.slow  # three processes that import torch
def test_two_processes_of_torchrun_score_as_one(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where the images do not divide: five for two."""
    (tmp_path / "five.py").write_text(PLUGIN)
    checkpoint = shared_checkpoint(tmp_path_factory)
    options = [str(checkpoint), "--data", "tiny_five", "--plugin", "five.py", "--device", "cpu"]
    options += ["--boundary", "--calibration", "--predictions", "predictions"]
    torchrun = [*("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")]
    command = [sys.executable, *torchrun, str(ROOT / "tools/evaluate.py"), *options]
    done = subprocess.run(
        [*command, "--output", "two.json"],
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mIoU16") == 1
    assert len(list(tmp_path.glob("predictions/tiny_five/*.png"))) == 5
    assert main(["evaluate", *options, "--output", "one.json"]) == 0
    one, two = (entries_in(tmp_path / f"{name}.json")[0].scores for name in ("one", "two"))
    assert one.num_images == 5
    assert str(one) == str(two)  # to the bit; NaN equals NaN as text


def _unlabelled(folder: Path) -> None:
    (folder / "bare").mkdir()
    cv2.imwrite(str(folder / "bare/a.png"), np.zeros((96, 160, 3), dtype=np.uint8))
    t2sda.datasets.register(DatasetSpec("bare", "bare", "*.png", None, CITYSCAPES_19))


def _all_ignored(folder: Path) -> None:
    for kind, image in (("images", np.zeros((96, 160, 3))), ("labels", np.full((96, 160), 255))):
        (folder / kind).mkdir()
        cv2.imwrite(str(folder / kind / "a.png"), image.astype(np.uint8))
    spec = DatasetSpec("void", str(folder), "images/*.png", "labels/{stem}.png", CITYSCAPES_19)
    t2sda.datasets.register(spec)


def _other_file(folder: Path) -> None:
    (folder / "old.json").write_text('{"evaluation/val/mIoU": 0.5}')


@pytest.mark.parametrize(
    ("arguments", "prepare", "text"),
    [
        (["--data", "bare"], _unlabelled, "'bare' has no labels, so nothing can be scored"),
        (["--data", "void", "--output", "x.json"], _all_ignored, "no pixel of 1 images is"),
        (["--data", "tiny_a", "tiny_a"], None, "--data: tiny_a tiny_a lists one twice"),
        (["--data", "tiny_a", "--blocks", "x"], None, "--blocks: a difference needs two models"),
        (["--data", "tiny_a", "--step", "8", "8"], None, "there is no window to move"),
        (["--data", "tiny_a", "--branch", "teacher"], None, "holds no teacher"),
        (["--data", "tiny_a", "--output", "old.json"], _other_file, "not a file of scores"),
        (["--data", "nowhere"], None, "no dataset is called 'nowhere'"),
    ],
)
def test_what_cannot_be_scored_is_one_message(
    arguments: list[str],
    prepare: Callable[[Path], None] | None,
    text: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if prepare is not None:
        prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    said = message([shared_checkpoint(tmp_path_factory), *arguments], capsys)
    assert text in said
    assert said.count("error:") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_models_that_see_images_in_different_ways_are_said_to(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(tmp_path / "small.onnx")
    checkpoint = shared_checkpoint(tmp_path_factory)
    assert main(["evaluate", "small.onnx", str(checkpoint), "--data", "tiny_a"]) == 0
    shown = capsys.readouterr().out
    assert "tiny_a: 3 images, seen in different ways, so differences may come from that" in shown
    assert "small.onnx: fit to 64x96, whole" in shown
    assert f"{checkpoint.name}: as they are, whole" in shown


def test_what_labels_alone_or_one_size_cannot_do_is_named(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(tmp_path / "labels.onnx")
    labels = "labels.onnx"
    for option in (["--flip"], ["--window", "64", "96"], ["--calibration"]):
        said = message([labels, "--data", "tiny_a", *option], capsys)
        assert "gives labels alone" in said
        assert "--output-kind logits" in said
    said = message([labels, "--data", "tiny_a", "--image-size", "32", "64"], capsys)
    assert "takes images of 64x96 only" in said
    checkpoint = shared_checkpoint(tmp_path_factory)
    said = message([checkpoint, labels, "--data", "tiny_a", "--predictions", "out"], capsys)
    assert "of one model at a time" in said
    said = message([checkpoint, labels, "--data", "tiny_a", "--blocks", "x/"], capsys)
    assert "blocks 'x/': not found in 3 of 3 names, such as tiny_a_00000" in said
    said = message([labels, "--data", "tiny_a", "--branch", "teacher"], capsys)
    assert "--branch teacher: labels.onnx holds one network" in said
    said = message([labels, "./labels.onnx", "--data", "tiny_a"], capsys)
    assert "labels.onnx: given twice; name each once" in said
    assert "no such file or folder" in message(["nothing.onnx", "--data", "tiny_a"], capsys)


def test_a_class_that_is_nowhere_is_said_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = WEIGHTS.copy()
    weights[CITYSCAPES_19.class_names.index("bus")] = -100.0  # no street of tiny_a has one
    write_tiny(tmp_path / "m.onnx", tiny_model(weights=weights))
    assert main(["evaluate", "m.onnx", "--data", "tiny_a", "--output", "s.json"]) == 0
    (entry,) = entries_in(tmp_path / "s.json")
    absent = [name for name, iou in entry.scores.iou.items() if iou != iou]
    assert absent == ["bus"]
    assert f"left out of the mean: {', '.join(absent)}" in capsys.readouterr().out
    stored = json.loads((tmp_path / "s.json").read_text())["entries"][0]
    assert [name for name, iou in stored["iou"].items() if iou is None] == absent
