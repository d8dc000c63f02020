"""`t2sda verify` and `t2sda export info`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn.functional import conv2d

from t2sda.cli.main import main
from t2sda.engine.checkpoint import Checkpoint
from t2sda.export.openvino import export_openvino
from t2sda.export.verify import TOLERANCES, Tolerance
from tests.deployed import STATIC, shared_checkpoint, shared_export
from tests.tiny_onnx import WEIGHTS, edited, tiny_model, write_tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.onnx")


def changed(path: Path, by: float) -> Path:
    """The same network with other weights, sealed as an export would."""
    weights = WEIGHTS + np.float32(by) * (WEIGHTS[::-1] - WEIGHTS)
    return write_tiny(path, tiny_model(weights=weights))


def test_a_file_alone(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tiny)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{tiny}: whole, as it was written; made of run tiny, iteration 1"
    assert said[1].startswith(f"runs in onnxruntime: {3 * 64 * 96} pixels of drawn streets, each")
    assert said[2] == "not compared with anything; --against RUN|FILE does"


def test_against_what_it_was_made_of(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ir = tiny.with_suffix(".xml")
    export_openvino(tiny, ir, precision="fp32")
    for file, against in ((tiny, tiny), (ir, tiny), (tiny, ir)):
        assert main(["verify", str(file), "--against", str(against)]) == 0
        assert f"agrees with {against}: logits differ by at most" in capsys.readouterr().out


def test_against_other_weights(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = changed(tmp_path / "other.onnx", 0.01)
    assert main(["verify", str(tiny), "--against", str(other)]) == 2
    assert f"{tiny} disagrees with {other}: logits differ by at most" in capsys.readouterr().err


@pytest.mark.slow
def test_against_the_run_that_it_was_made_of(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shared_checkpoint(tmp_path_factory).parent
    file = shared_export(tmp_path_factory, STATIC)
    assert main(["verify", str(file), "--against", str(run)]) == 0
    assert f"agrees with {run}: logits differ by at most" in capsys.readouterr().out


def test_against_a_run(
    tiny: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = shared_checkpoint(tmp_path_factory).parent
    assert main(["verify", str(tiny), "--against", str(run)]) == 2
    assert f"{tiny} disagrees with {run}: logits differ by at most" in capsys.readouterr().err

    def same_network(checkpoint: Checkpoint, branch: str) -> Callable[[Tensor], Tensor]:
        assert (checkpoint.path.parent, branch) == (run, "student")
        return lambda images: conv2d(images.float(), torch.from_numpy(WEIGHTS))

    monkeypatch.setattr("t2sda.export.later.model_of_checkpoint", same_network)
    assert main(["verify", str(tiny), "--against", str(run)]) == 0
    assert f"agrees with {run}: logits differ by at most" in capsys.readouterr().out


def test_max_changed_allows_what_the_precision_does_not(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny), "--max-changed", "0.5"]) == 2
    assert "nothing to compare with; add --against RUN|FILE" in capsys.readouterr().err
    assert TOLERANCES["int8"].allowing(0.06) == Tolerance(0.5, 0.06, 0.16)
    assert TOLERANCES["int8"].allowing(0.01) == Tolerance(0.5, 0.01, 0.08)


def test_a_changed_file(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(2 * WEIGHTS, "weights"))

    edited(tiny, change)
    for arguments in (["verify", str(tiny)], ["export", "info", str(tiny)]):
        assert main(arguments) == 2
        assert "its metadata and its weights do not belong together" in capsys.readouterr().err


def test_what_cannot_be_compared(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "a.engine").touch()
    for arguments, message in (
        ([str(tmp_path / "run")], "run: a checkpoint or a run's folder; an exported file is due"),
        ([str(tiny), "--against", str(tmp_path / "none.onnx")], "none.onnx: no such file"),
        ([str(tiny), "--against", str(tmp_path / "run")], "run: no checkpoint_*.pth"),
        ([str(tiny), "--against", str(tmp_path / "a.engine")], "an engine gives no logits"),
    ):
        assert main(["verify", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_info(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "info", str(tiny)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["takes"] == "one at once, 64x96 (height x width), uint8 RGB, nhwc"
    assert rows["gives"] == "labels, computed in fp32"
    assert rows["opset"] == "20"
    assert rows["operators"] == "ArgMax 1, Cast 2, Conv 1, Transpose 1"
    assert rows["classes"].startswith("19 of cityscapes_19: road, sidewalk, ")
