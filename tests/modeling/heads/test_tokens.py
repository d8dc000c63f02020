"""Heads of plain transformers: a slow reference, their size, and what they may be built on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from t2sda.config import ConfigError, load_config
from t2sda.errors import UserError
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.modeling.heads.segformer import SegFormerHead
from t2sda.modeling.heads.tokens import LinearHead, UpscalingHead
from t2sda.modeling.hrda import HRDA
from t2sda.structures import FeatureSpec

SPECS = (FeatureSpec(5, 4), FeatureSpec(8, 16))
TOKENS = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0)).double()


def upscaling_head() -> UpscalingHead:
    torch.manual_seed(1)
    head = UpscalingHead(SPECS, num_classes=3).double()
    for parameter in head.parameters():
        if parameter.dim() == 1:  # LayerNorms that do something
            torch.nn.init.normal_(parameter)
    return head


def doubled(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Transposed convolution of side 2 and stride 2: every cell makes four of its own."""
    rows, columns = maps.shape[2:]
    result = np.zeros((maps.shape[0], weight.shape[1], 2 * rows, 2 * columns))
    for row in range(2 * rows):
        for column in range(2 * columns):
            cell = maps[:, :, row // 2, column // 2]
            result[:, :, row, column] = cell @ weight[:, :, row % 2, column % 2]
    return result


def layer_norm(maps: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    mean, variance = maps.mean(axis=1, keepdims=True), maps.var(axis=1, keepdims=True)
    normed = (maps - mean) / np.sqrt(variance + 1e-5)
    return normed * scale[:, None, None] + shift[:, None, None]


def gelu(maps: np.ndarray) -> np.ndarray:
    return maps * 0.5 * (1 + np.vectorize(math.erf)(maps / math.sqrt(2)))


def smoothed(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """3x3 convolution over zeros at the border."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = maps.shape[2:]
    return sum(
        np.einsum("bdhw,cd->bchw", padded[:, :, i : i + rows, j : j + columns], weight[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )


def test_upscaling_is_that_of_a_slow_reference() -> None:
    head = upscaling_head()
    found = head((torch.empty(0), TOKENS)).detach().numpy()
    p = {name: tensor.detach().numpy() for name, tensor in head.named_parameters()}
    maps = doubled(TOKENS.numpy(), p["upscale.0.weight"])
    maps = gelu(layer_norm(maps, p["upscale.1.weight"], p["upscale.1.bias"]))
    maps = doubled(maps, p["upscale.3.weight"])
    maps = layer_norm(maps, p["upscale.4.weight"], p["upscale.4.bias"])
    maps = smoothed(maps, p["upscale.5.weight"])
    maps = layer_norm(maps, p["upscale.6.weight"], p["upscale.6.bias"])
    expected = np.einsum("bdhw,cd->bchw", maps, p["classifier.weight"][..., 0, 0])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_token_further_is_four_logits_further() -> None:
    head = upscaling_head()
    moved = torch.cat([torch.zeros_like(TOKENS[..., :1]), TOKENS], dim=-1)
    plain, shifted = head((TOKENS,)), head((moved,))
    # The 3x3 convolution looks one cell beyond a token, so the border differs.
    torch.testing.assert_close(shifted[..., 5:], plain[..., 1:], atol=1e-12, rtol=0)


def test_linear_is_a_product_at_every_token() -> None:
    head = LinearHead(SPECS, num_classes=3).double()
    weight, bias = head.classifier.weight[..., 0, 0], head.classifier.bias
    assert bias is not None
    expected = torch.einsum("bdhw,cd->bchw", TOKENS, weight) + bias[:, None, None]
    torch.testing.assert_close(head((torch.empty(0), TOKENS)), expected, atol=1e-12, rtol=0)


def test_their_size_is_that_of_the_published_ones() -> None:
    tokens, num_classes = (FeatureSpec(768, 16),), 19

    def count(head: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in head.parameters())

    assert count(LinearHead(tokens, num_classes)) == 768 * 19 + 19
    expected = 768 * 384 * 4 + 384 * 192 * 4 + 192 * 192 * 9 + 2 * (384 + 192 + 192) + 192 * 19
    assert count(UpscalingHead(tokens, num_classes)) == expected


@pytest.mark.parametrize("name", ["LinearHead", "UpscalingHead"])
def test_a_pyramid_that_nothing_reads_is_refused(name: str) -> None:
    words = ["MODEL.BACKBONE.NAME", "TimmViT", "MODEL.HEAD.NAME", name]
    with pytest.raises(ConfigError, match=f"PYRAMID_CHANNELS: 256, but {name} reads the last"):
        load_config(None, words)
    load_config(None, [*words, "MODEL.BACKBONE.PYRAMID_CHANNELS", "0"])


def test_a_grid_that_hrda_cannot_cut_is_refused() -> None:
    for stride, head_class, message in (
        (16.0, UpscalingHead, "logits of UpscalingHead are 4 times finer; use another head"),
        (12.8, SegFormerHead, "needs whole pixels, not 12.8; leave MODEL.BACKBONE.TOKEN_STRIDE 0"),
    ):
        backbone = TimmViT("test_vit", pyramid_channels=0, token_stride=stride)
        head = head_class(backbone.feature_specs, 3)
        with pytest.raises(UserError, match=message):
            HRDA(backbone, head, head, (32, 32), (64, 64))


def test_an_auxiliary_head_of_a_level_that_is_not_there_is_refused() -> None:
    settings = [
        *("MODEL.BACKBONE.NAME", "TimmViT", "MODEL.BACKBONE.PYRAMID_CHANNELS", "0"),
        *("MODEL.HEAD.NAME", "LinearHead", "MODEL.AUX_HEAD.NAME", "LinearHead"),
    ]
    load_config(None, [*settings, "MODEL.AUX_HEAD.LEVEL", "0"])
    with pytest.raises(ConfigError, match=r"AUX_HEAD.LEVEL: 2, .* has the level 0 alone"):
        load_config(None, settings)
