"""`t2sda env` and `t2sda gpu-check`: what works is found out by using it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from t2sda.cli import env, gpu_check
from t2sda.cli.main import main


def test_env_tells_versions_devices_runtimes_and_datasets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["env"]) == 0
    shown = capsys.readouterr().out
    for what in (
        "torch",
        "CPU",
        "CUDA",
        "ONNX Runtime CPUExecutionProvider",
        "streets_clear_train",
    ):
        assert what in shown
    rendered = next(line for line in shown.splitlines() if "rendered_train" in line)
    assert "works" not in rendered  # its folder is not here


def test_a_provider_that_falls_back_is_not_working(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    (finding,) = env._onnxruntime()
    if torch.cuda.is_available():
        pytest.skip("needs a machine whose CUDA provider cannot work")
    assert not finding.works
    assert "fell back to CPUExecutionProvider" in finding.detail


def test_what_is_missing_is_said_in_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    finding = env._tried("OpenVINO", env._run_openvino)
    assert not finding.works
    assert finding.detail == "not installed (openvino)"


def test_gpu_check_runs_through_and_says_what_it_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "PRECISIONS", ("bf16",))
    monkeypatch.setattr(gpu_check, "SIZES", {**gpu_check.SIZES, "cpu": ("[64, 96]", 2)})
    report = tmp_path / "report.md"
    code = main(["gpu-check", "--output", str(report)])
    text = report.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    outcomes = {row[0].removeprefix("| "): row[1] for row in rows if len(row) == 3}
    assert outcomes["T2S-DA, bf16"] == "ok", text
    if not torch.cuda.is_available():
        assert outcomes["T2S-DA, bf16, torch.compile"] == "skipped"
        assert outcomes["ONNX Runtime, CUDA"] == "skipped"
        assert "no GPU" in text
    # The export takes the fp32 run, which this test leaves out: a failure is in the report.
    assert outcomes["ONNX export, verified"] == "FAILED"
    assert outcomes["ONNX Runtime, CPU"] == "skipped"
    assert code == 1
    assert "peak" in text
