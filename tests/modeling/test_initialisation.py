"""New layers begin as in the baseline's framework: the standard deviation of each, by its rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from t2sda.modeling.heads.base import Head
from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.heads.deeplabv2 import DeepLabV2Head
from t2sda.modeling.heads.light import LightHead
from t2sda.modeling.heads.segformer import SegFormerHead
from t2sda.modeling.projector import Projector
from t2sda.structures import FeatureSpec

SPECS = tuple(map(FeatureSpec, (64, 128, 320, 512), (4, 8, 16, 32)))
CLASSIFIERS = (
    "conv_seg",
    "linear_pred",
    "classifier",
    "aspp_modules.0.conv",
    "aspp_modules.1.conv",
)


def assert_begins_by_the_rules(module: nn.Module) -> None:
    convolutions = 0
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and not layer.bias.any()  # noqa: PT018
        elif isinstance(layer, nn.Linear) or name.startswith("projections."):
            # torch's own: U(-1 / sqrt(fan-in), 1 / sqrt(fan-in)); a sum of levels weighs them alike
            fan_in = layer.weight.shape[1]
            assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.05)
        elif isinstance(layer, nn.Conv2d):
            convolutions += 1
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            is_classifier = name in CLASSIFIERS and layer.bias is not None
            expected = 0.01 if is_classifier else math.sqrt(2 / fan_out)
            tolerance = 4 / math.sqrt(2 * layer.weight.numel())  # four standard errors
            assert layer.weight.std().item() == pytest.approx(expected, rel=tolerance), name
            assert abs(layer.weight.mean().item()) < expected * 4 / math.sqrt(layer.weight.numel())
            assert layer.bias is None or not layer.bias.any()
    assert convolutions


@pytest.mark.parametrize("head", [DAFormerHead, SegFormerHead, LightHead, DeepLabV2Head])
def test_a_head_begins_as_in_the_baselines_framework(head: type[Head]) -> None:
    torch.manual_seed(0)
    assert_begins_by_the_rules(head(SPECS, 19))


def test_the_projector_begins_as_in_the_baselines_framework() -> None:
    torch.manual_seed(0)
    assert_begins_by_the_rules(Projector(512))
