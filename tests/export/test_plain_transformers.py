"""Plain transformers without a pyramid, exported: heads of last tokens, and fractional strides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from t2sda import load_model
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.export.onnx import export_onnx
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.modeling.heads.tokens import LinearHead, TokenHead, UpscalingHead
from t2sda.modeling.segmentor import SegmentationModel
from tests.deployed import street

DINOV2 = "vit_small_patch14_dinov2.lvd142m"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("timm_name", "stride", "head_class", "dynamic"),
    [
        (DINOV2, 0.0, LinearHead, False),
        (DINOV2, 12.8, UpscalingHead, False),
        ("test_vit", 12.8, UpscalingHead, True),
    ],
)
def test_logits_are_those_of_torch(
    timm_name: str, stride: float, head_class: type[TokenHead], dynamic: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    backbone = TimmViT(timm_name, pyramid_channels=0, token_stride=stride)
    model = SegmentationModel(backbone, head_class(backbone.feature_specs, 19)).eval()
    path = tmp_path / "vit.onnx"
    report = export_onnx(
        model,
        CITYSCAPES_19,
        path,
        image_size=(64, 128),
        dynamic=dynamic,
        output_kind="logits",
    )
    assert report.num_changed == report.num_ties
    for size in ((64, 128), (85, 131)) if dynamic else ((64, 128),):
        image = street(size)
        with torch.no_grad():
            expected = model(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])[0]
        found = torch.from_numpy(load_model(path).logits(image))
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
