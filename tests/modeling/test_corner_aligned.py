"""Logits of AdaptSegNet's family: corners aligned, on grids that are rounded up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from t2sda import load_model
from t2sda.config import ConfigError, load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.export.onnx import export_onnx
from t2sda.modeling.corner_aligned import CornerAlignedModel
from t2sda.modeling.segmentor import build_segmentation_model

SETTINGS = (
    *("MODEL.NAME=CornerAlignedModel", "MODEL.HEAD.NAME=DeepLabV2Head"),
    *("MODEL.BACKBONE.NAME=ResNetCaffe", "MODEL.BACKBONE.DEPTH=18"),
)


def build() -> CornerAlignedModel:
    model = build_segmentation_model(load_config(None, SETTINGS), 19)
    assert isinstance(model, CornerAlignedModel)
    return model.eval()


@torch.no_grad()
def test_corners_of_the_image_are_corners_of_the_grid() -> None:
    model = build()
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    features = model.features(image)
    coarse = model.head(features.rounded_up)
    assert coarse.shape[-2:] == (9, 13)
    assert features.deepest.shape[-2:] == (8, 12)
    logits = model.logits(features)
    for place in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        at = (..., *place)
        torch.testing.assert_close(logits[at], coarse[at])


def test_loss_has_a_gradient_for_every_parameter() -> None:
    model = build()
    features = model.features(torch.rand(2, 3, 64, 64) * 255, torch.Generator())
    model.loss(features, torch.randint(0, 19, (2, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_exported_file_agrees(tmp_path: Path) -> None:
    model, path = build(), tmp_path / "model.onnx"
    export_onnx(model, CITYSCAPES_19, path, image_size=(64, 64))
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        labels = model(image).argmax(dim=1)[0].numpy()
    assert (load_model(path).predict(image[0]) == labels).mean() > 0.999


def test_another_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match="CornerAlignedModel needs MODEL.BACKBONE.NAME Res"):
        load_config(None, ["MODEL.NAME=CornerAlignedModel"])
