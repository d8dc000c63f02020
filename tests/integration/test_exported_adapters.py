"""DINOv2 with adapters: resumed, exported, and built as an engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from t2sda import load_model
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.checkpoint import load_checkpoint
from t2sda.export.onnx import export_onnx
from t2sda.export.tensorrt import EngineSettings, build_engine
from t2sda.modeling.backbones.timm_networks import create_timm_network
from t2sda.modeling.segmentor import build_segmentation_model, to_be_loaded
from t2sda.runtime.checkpoints import model_of_checkpoint, open_checkpoint
from t2sda.training.run import run_training
from tests.deployed import street
from tests.integration.conftest import checkpoint_differences
from tests.integration.test_adapters import logits, run_config

pytestmark = pytest.mark.slow
DINOV2 = (
    *("MODEL.BACKBONE.TIMM_NAME", "vit_small_patch14_dinov2.lvd142m"),
    *("MODEL.BACKBONE.ADAPTER.FROM_BLOCK", "4"),
)


@pytest.fixture(scope="module")
def dinov2_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T2S-DA of DINOv2's small transformer, two steps; a second run was stopped between them."""
    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(3)
    weights = folder / "vit.pth"
    torch.save(create_timm_network("vit_small_patch14_dinov2.lvd142m").state_dict(), weights)
    settings = (*DINOV2, "SOLVER.MAX_ITER", "2", "CHECKPOINT.PERIOD", "1")
    for name in ("run", "again"):
        run_training(run_config(folder / name, weights, *settings))
    (folder / "again/checkpoint_0000002.pth").unlink()
    run_training(run_config(folder / "again", weights, *settings), resume=True)
    return folder


def test_dinov2_is_resumed_exactly(dinov2_run: Path) -> None:
    one, two = (dinov2_run / name / "checkpoint_0000002.pth" for name in ("run", "again"))
    assert checkpoint_differences(one, two) == []


@pytest.fixture(scope="module")
def dinov2_exports(dinov2_run: Path) -> dict[str, Path]:
    """Of a live network with adapters, of its checkpoint, and of the same without any adapter."""
    checkpoint = open_checkpoint(dinov2_run / "run")
    cfg = run_config(dinov2_run, dinov2_run / "vit.pth", *DINOV2)
    plain = to_be_loaded(cfg)
    live = build_segmentation_model(cfg, 19)
    live.load_state_dict(
        {
            name.removeprefix("student.model."): tensor
            for name, tensor in checkpoint.meta_arch.items()
            if name.startswith("student.model.")
        }
    )
    models = {
        "live": live.eval(),
        "checkpoint": model_of_checkpoint(checkpoint),
        "plain": build_segmentation_model(plain, 19).eval(),
    }
    paths = {name: dinov2_run / f"{name}.onnx" for name in models}
    for name, model in models.items():
        export_onnx(
            model, CITYSCAPES_19, paths[name], image_size=(64, 96), output_kind="logits", origin={}
        )
    return paths


def test_exported_adapters_leave_no_nodes_and_the_same_logits(
    dinov2_run: Path, dinov2_exports: dict[str, Path]
) -> None:
    nodes = {
        name: Counter(node.op_type for node in onnx.load(path).graph.node)
        for name, path in dinov2_exports.items()
    }
    assert nodes["live"] == nodes["checkpoint"] == nodes["plain"]
    image = street((64, 96))
    expected = logits(model_of_checkpoint(open_checkpoint(dinov2_run / "run"))).numpy()[0]
    state = load_checkpoint(dinov2_run / "run/checkpoint_0000002.pth").meta_arch
    assert any(name.endswith("adapter_up") and bool(t.any()) for name, t in state.items())
    for name in ("live", "checkpoint"):
        (found,) = load_model(str(dinov2_exports[name]), device="cpu").logits([image])
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_tensorrt_rtx_builds_it(dinov2_exports: dict[str, Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX (pip install 't2sda[trt-rtx]')")
    assert build_engine(dinov2_exports["live"], EngineSettings(target="tensorrt-rtx")).content
