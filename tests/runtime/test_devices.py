"""Which GPU is used, where it is named by its number; no GPU is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from t2sda import load_model
from t2sda.engine.device import choose_device
from t2sda.errors import UserError
from t2sda.runtime import onnxruntime_file
from t2sda.runtime.devices import gpu_index, kind_of_device
from tests.tiny_onnx import metadata, tiny_model, write_tiny


def test_names() -> None:
    assert [gpu_index(name) for name in ("cuda:1", "cuda:0", "cuda", "cpu")] == [1, 0, None, None]
    assert kind_of_device("cuda:12") == "cuda"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cpu:0", "cuda:1x", "auto:1"])
def test_unknown_names(name: str, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "tiny.onnx")
    with pytest.raises(UserError, match=r"unknown; one of auto, cpu, cuda, cuda:N"):
        load_model(path, device=name)


def test_torch_takes_the_gpu_of_that_number(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)]
    with pytest.raises(UserError, match="cuda:2: this machine has 2 usable GPUs"):
        choose_device("cuda:2")


def test_onnx_runtime_is_asked_for_the_gpu_of_that_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Session:
        """In place of one on a GPU."""

        def __init__(self, source: str, options: Any, providers: list[Any]) -> None:
            asked.extend(providers)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

    cuda = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    onnxruntime_file.open_session(tmp_path / "a.onnx", "cuda:1")
    onnxruntime_file.open_session(tmp_path / "a.onnx", "cuda", graphs=True)
    assert asked == [(cuda, {"device_id": "1"}), (cuda, {"enable_cuda_graph": "1"})]


def test_a_file_holds_the_branch_that_it_was_made_of(tmp_path: Path) -> None:
    properties = metadata(origin={"branch": "teacher"}).to_properties()
    path = write_tiny(tmp_path / "t.onnx", tiny_model(properties=properties))
    assert load_model(path).origin["branch"] == "teacher"
    assert load_model(path, branch="teacher").origin["branch"] == "teacher"
    with pytest.raises(UserError, match="--branch student: .*t.onnx holds the teacher; give a"):
        load_model(path, branch="student")
    silent = write_tiny(tmp_path / "s.onnx", tiny_model(properties=metadata().to_properties()))
    with pytest.raises(UserError, match="holds one network, without saying whose"):
        load_model(silent, branch="student")
