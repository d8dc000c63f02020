"""Runs with HRDA on the command line: resumed, evaluated, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.export.verify import metadata_of_onnx
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.runtime.predictor import FilePredictor
from tests.deployed import street, write_checkpoint
from tests.integration.conftest import TINY_CONFIG, Run, checkpoint_differences

HRDA_CONFIG = (
    TINY_CONFIG.replace(
        "{SOURCE: streets_clear_train}",
        "{SOURCE: streets_clear_train, TARGET: streets_hazy_train}",
    )
    .replace("MAX_ITER: 12", "MAX_ITER: 4")
    .replace("MODEL: {", "MODEL: {NAME: HRDA, HRDA: {DETAIL_SIZE: [32, 48]}, ")
    + """
META_ARCH: {NAME: T2SDA, PASSES: [source, mixed, pull, masked]}
MASKED: {BLOCK_SIZE: 16}
TRANSLATION: {NAME: FDA}
HOOKS: {NAMES: [EmaTeacher, DynamicReweighting]}
EMA: {MOMENTUM: 0.9}
T2SDA: {NUM_NEGATIVES: 64, QUERIES_PER_CLASS: 16}
"""
)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["SOLVER.ACCUMULATION", "2"], id="two micro-steps"),
        pytest.param(["SOLVER.PRECISION", "bf16"], id="bf16"),
    ],
)
def test_a_resumed_run_draws_the_same_crops_bit_by_bit(
    settings: list[str], t2sda_inline: Run, tmp_path: Path
) -> None:
    config = tmp_path / "hrda.yaml"
    config.write_text(HRDA_CONFIG)
    words = ["train", "--config-file", config, "--output-dir", tmp_path / "run", "--resume"]
    final, kept = tmp_path / "run/checkpoint_0000004.pth", tmp_path / "undisturbed.pth"
    for _ in range(2):  # the second time from the checkpoint after three steps
        result = t2sda_inline(*words, *settings)
        assert result.returncode == 0, result.stderr
        if not kept.exists():
            final.rename(kept)
    assert checkpoint_differences(kept, final) == []


WINDOW = (64, 96)
SLIDING = (
    *("MODEL.NAME", "HRDA", "MODEL.HRDA.DETAIL_SIZE", "[32, 48]"),
    *("MODEL.HRDA.WINDOW_SIZE", "[64, 96]", "EVALUATION.IMAGE_SIZE", "[96, 200]"),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hrda"), *SLIDING)


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """One window's graph."""
    path = checkpoint.with_name("hrda.onnx")
    assert main(["export", "onnx", str(checkpoint), "--output", str(path)]) == 0
    return path


def labels_agree(found: Any, expected: Any, logits: np.ndarray) -> bool:
    """Other labels only where the two best logits are all but the same."""
    best, second = -np.partition(-logits, 1, axis=0)[:2]
    return bool(((found == expected) | (best - second < 1e-3)).all())


def test_one_window_is_one_graph_and_the_file_says_how_it_slides(exported: Path) -> None:
    described = metadata_of_onnx(exported)
    assert (described.image_size, described.window_step) == (WINDOW, (32, 48))
    assert (described.output_kind, described.image_bound) == ("logits", (96, 200))
    graph = onnx.load(exported).graph
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [1, *WINDOW, 3]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("size", [(64, 96), (96, 200), (192, 500)])
def test_every_runtime_slides_as_torch_does(
    runtime: str, size: tuple[int, int], checkpoint: Path, exported: Path
) -> None:
    image = street(size)
    expected, found = load_model(checkpoint), load_model(exported, runtime)
    logits = expected.logits(image)
    np.testing.assert_allclose(found.logits(image), logits, atol=2e-3 * np.abs(logits).max())
    assert labels_agree(found.predict(image), expected.predict(image), logits)


@pytest.mark.slow
def test_whole_images_as_one_graph_hold_the_slide(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "whole.onnx"
    words = ["export", "onnx", str(checkpoint), "--output", str(path), "--size", "64", "120"]
    assert main(words) == 0
    described = metadata_of_onnx(path)
    assert (described.window_step, described.output_kind) == (None, "labels")
    image = street((64, 120))
    with torch.no_grad():
        model = model_of_checkpoint(open_checkpoint(checkpoint))
        logits = model(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    assert labels_agree(load_model(path).predict(image), logits.argmax(axis=0), logits)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dynamic"], "--dynamic: this HRDA takes windows of 64x96"),
        (["--output-kind", "labels"], "windows of 64x96 give logits, which are averaged"),
    ],
)
def test_what_does_not_slide_is_refused(
    words: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "m.onnx"
    assert main(["export", "onnx", str(checkpoint), "--output", str(output), *words]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("target", "precision", "suffix"),
    [
        pytest.param("onnx", "fp16", "onnx", marks=pytest.mark.slow),
        pytest.param("onnx", "int8", "onnx", marks=pytest.mark.slow),
        pytest.param("openvino", "fp32", "xml", marks=pytest.mark.slow),
    ],
)
def test_other_files_of_it_slide_too(
    target: str, precision: str, suffix: str, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"m.{suffix}"
    words = ["export", target, str(checkpoint), "--output", str(path), "--precision", precision]
    if precision == "int8":
        words += ["--calibration", "docs/demo", "--max-changed", "0.2"]
    assert main(words) == 0
    model = load_model(path)
    assert isinstance(model, FilePredictor)
    assert model.metadata.window_step == (32, 48)
    image = street((96, 200))
    assert (model.predict(image) == load_model(checkpoint).predict(image)).mean() > 0.8


def test_infer_and_benchmark_take_it_as_any_file(
    exported: Path, t2sda_inline: Run, tmp_path: Path
) -> None:
    words = ["infer", "--model", exported, "--input", "docs/demo", "--output", tmp_path / "out"]
    result = t2sda_inline(*words, "--kind", "probabilities,overlay")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "out").glob("*_overlay.*"))) == 2
    result = t2sda_inline("benchmark", exported, "--sizes", "96x200", "--rounds", "1")
    assert result.returncode == 0, result.stderr
