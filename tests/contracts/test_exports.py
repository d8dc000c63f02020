"""Every shipped model: exported, checked, run in two runtimes, built by TensorRT-RTX.

The light network is in CI; the others are run by `make test-slow`, at full size by
`benchmarks/export_all.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from t2sda import load_model
from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.export.onnx import export_onnx
from t2sda.export.tensorrt import EngineSettings, build_engine
from t2sda.modeling.segmentor import build_segmentation_model
from tests.deployed import street

CONFIGS = sorted((Path(__file__).parents[2] / "configs/models").glob("*.yaml"))
IMAGE_SIZE = (64, 96)


def parameters() -> list:
    deeper = (
        "_r101",
        "_mit_b0",
        "dinov2",
        "convnext",
        *(f"_b{number}" for number in range(1, 6)),
    )
    return [
        pytest.param(
            path, id=path.stem, marks=[pytest.mark.slow] if path.stem.endswith(deeper) else []
        )
        for path in CONFIGS
    ]


@pytest.mark.parametrize("config", parameters())
def test_a_shipped_model_runs_everywhere(config: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_segmentation_model(
        load_config(str(config), ["MODEL.BACKBONE.WEIGHTS", ""]), CITYSCAPES_19.num_classes
    )
    path = tmp_path / "model.onnx"
    report = export_onnx(model, CITYSCAPES_19, path, image_size=IMAGE_SIZE)
    assert report.passed
    image = street(IMAGE_SIZE)
    labels = load_model(path).predict(image)
    in_openvino = load_model(path, "openvino").predict(image)
    assert (labels != in_openvino).mean() <= 0.01  # random weights tie more often than trained ones
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX")
    built = build_engine(path, EngineSettings("tensorrt-rtx", precision="fp32"))
    assert len(built.content) > 100_000
