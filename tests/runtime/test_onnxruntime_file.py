"""Sessions on a GPU, with a session class that stands for ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from t2sda import load_model
from t2sda.errors import UserError
from t2sda.runtime.packages import DeviceUnavailableError
from t2sda.runtime.predictor import FilePredictor
from tests.deployed import DYNAMIC, IMAGE_SIZE, STATIC, shared_export, street

CUDA = "CUDAExecutionProvider"
REFUSAL = (
    "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as "
    "requested by the user as all compute graph nodes have not been partitioned to the "
    "CUDAExecutionProvider"
)


class Gpu:
    """What sessions were opened and how they were run.

    Args:
        monkeypatch: puts sessions of this GPU in the place of ONNX Runtime's.
        records: False: some node is on the CPU.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, records: bool) -> None:
        self.opened: list[bool] = []
        self.calls: list[str] = []
        gpu, session_class = self, onnxruntime.InferenceSession

        class Session:
            def __init__(self, source: str, options: Any, providers: list[Any]) -> None:
                ((provider, settings),) = providers
                assert provider == CUDA
                gpu.opened.append(settings.get("enable_cuda_graph") == "1")
                if gpu.opened[-1] and not records:
                    raise Fail(REFUSAL)
                self._recorded = gpu.opened[-1]
                self._on_cpu = session_class(source, providers=["CPUExecutionProvider"])

            def get_providers(self) -> list[str]:
                return [CUDA, "CPUExecutionProvider"]

            def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
                assert not self._recorded
                gpu.calls.append("run")
                return self._on_cpu.run(names, feeds)

            def io_binding(self) -> Any:
                gpu.calls.append("bound")
                raise Fail("bound")

            def __getattr__(self, name: str) -> Any:
                return getattr(self._on_cpu, name)

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        value = type("Value", (), {"ortvalue_from_numpy": staticmethod(lambda *_: None)})
        monkeypatch.setattr(onnxruntime, "OrtValue", value)


@pytest.fixture
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_export(tmp_path_factory, STATIC)


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_graph_that_cannot_be_recorded_runs_node_by_node(
    static: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = street(IMAGE_SIZE)
    expected = load_model(static).predict(image)
    gpu = Gpu(monkeypatch, records=False)
    model = load_model(static, device=device)
    assert gpu.opened == [False, True]
    assert np.array_equal(model.predict(image), expected)
    assert gpu.calls == ["run"]


def test_a_static_graph_is_recorded_and_its_tensors_are_bound(
    static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(monkeypatch, records=True)
    model = load_model(static, device="cuda")
    assert gpu.opened == [False, True]
    with pytest.raises(UserError, match="bound"):
        model.predict(street(IMAGE_SIZE))
    assert gpu.calls == ["bound"]


def test_a_dynamic_graph_is_not_recorded(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_export(tmp_path_factory, DYNAMIC)
    gpu = Gpu(monkeypatch, records=True)
    assert isinstance(load_model(path, device="cuda"), FilePredictor)
    assert gpu.opened == [False]


def test_a_file_that_does_not_load_at_all_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ends as protobuf does, but holds no graph.
    (tmp_path / "text.onnx").write_bytes(b"\x08\x0a")
    gpu = Gpu(monkeypatch, records=True)
    with pytest.raises(
        UserError, match=r"text.onnx: ONNX Runtime [\d.]+ cannot load this file"
    ) as raised:
        load_model(tmp_path / "text.onnx", device="cuda")
    assert not isinstance(raised.value, DeviceUnavailableError)
    assert gpu.opened == [False]
