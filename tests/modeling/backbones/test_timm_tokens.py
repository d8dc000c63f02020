"""Tokens of timm's transformers: hidden ones, their positions, and how many there are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.losses.masking import cells_as_pixels
from t2sda.losses.sampling import labels_on_grid
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.structures import FeatureSpec, HiddenTokens

DINOV2 = "vit_small_patch14_dinov2.lvd142m"
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"


def image_of(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1)).double()


def some_hidden(channels: int, rows: int, columns: int) -> HiddenTokens:
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(2, rows, columns, generator=generator) < 0.7
    assert mask.any()
    assert not mask.all()
    return HiddenTokens(mask, torch.randn(channels, generator=generator).double())


def backbone_of(timm_name: str, **options: float) -> TimmViT:
    torch.manual_seed(0)
    backbone = TimmViT(timm_name, pyramid_channels=0, **options).double().eval()  # type: ignore[arg-type]
    return backbone.requires_grad_(False)


class ReachedError(Exception):
    """Ends a forward where enough was seen."""


def before_blocks(backbone: TimmViT, image: Tensor, hidden: HiddenTokens | None = None) -> Tensor:
    """(B, h * w, D), what the first block is given, without class and register tokens."""
    seen = []

    def look(_: object, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise ReachedError

    handle = backbone.net.blocks[0].register_forward_pre_hook(look)
    with pytest.raises(ReachedError):
        backbone(image, hidden)
    handle.remove()
    return seen[0][:, backbone.net.num_prefix_tokens :]


def test_hidden_tokens_are_the_mask_token_and_the_others_are_untouched() -> None:
    backbone = backbone_of("test_vit")
    image, hidden = image_of(64, 96), some_hidden(64, 4, 6)
    plain, masked = before_blocks(backbone, image), before_blocks(backbone, image, hidden)
    zeros = HiddenTokens(torch.ones_like(hidden.mask), torch.zeros(64).double())
    positions = before_blocks(backbone, image, zeros)
    mask = hidden.mask.flatten(1)
    assert torch.equal(masked[~mask], plain[~mask])
    expected = (hidden.token + positions)[mask]
    torch.testing.assert_close(masked[mask], expected, atol=1e-12, rtol=0)


# DINOv3's rotary positions are given to every block.
@pytest.mark.parametrize("timm_name", ["test_vit", "test_vit4", DINOV3])
def test_the_network_goes_on_as_timms(timm_name: str) -> None:
    backbone = backbone_of(timm_name)
    assert backbone.tokens is not None
    image, hidden = image_of(48, 80), some_hidden(backbone.tokens.channels, 3, 5)
    embed = backbone.net.patch_embed
    handle = embed.register_forward_hook(
        lambda _, inputs, tokens: torch.where(hidden.mask[..., None], hidden.token, tokens)
    )
    (expected,) = backbone(image)
    handle.remove()
    (found,) = backbone(image, hidden)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    nothing = HiddenTokens(torch.zeros_like(hidden.mask), hidden.token)
    assert torch.equal(backbone(image, nothing)[0], backbone(image)[0])


def test_pixels_of_hidden_tokens_have_no_influence_and_the_token_learns() -> None:
    backbone = backbone_of("test_vit")
    image, hidden = image_of(64, 96).requires_grad_(), some_hidden(64, 4, 6)
    hidden.token.requires_grad_()
    (features,) = backbone(image, hidden)
    features[:, :7].square().sum().backward()
    assert image.grad is not None
    assert hidden.token.grad is not None
    pixels = cells_as_pixels(hidden.mask[:, None], (64, 96), 16).expand_as(image)
    assert not image.grad[pixels].any()
    assert image.grad[~pixels].ne(0).double().mean() > 0.99
    assert hidden.token.grad.all()


@pytest.mark.slow
def test_hidden_tokens_compile_as_one_graph() -> None:
    backbone = backbone_of("test_vit")
    image = image_of(64, 96)
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
    for hidden in (None, some_hidden(64, 4, 6)):
        torch.testing.assert_close(compiled(image, hidden), backbone(image, hidden))
    torch._dynamo.reset()


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2, which Pillow's bicubic filter is."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resampling(cells: int, wanted: int) -> np.ndarray:
    """(wanted, cells) weights along a side; a smaller grid takes wider means."""
    scale = max(cells / wanted, 1.0)
    centres = (np.arange(wanted) + 0.5) * cells / wanted
    weights = cubic((np.arange(cells) + 0.5 - centres[:, None]) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


# Whole images, halves, and windows; DINOv2's own grid is 37 x 37.
@pytest.mark.parametrize(
    ("size", "stride", "grid"),
    [
        ((1024, 2048), 16.0, (64, 128)),
        ((512, 1024), 16.0, (32, 64)),
        ((1024, 1024), 16.0, (64, 64)),
        ((512, 512), 16.0, (32, 32)),
        ((1024, 1024), 12.8, (80, 80)),
        ((1024, 2048), 12.8, (80, 160)),
    ],
)
def test_positions_are_those_of_an_interpolation_of_our_own(
    size: tuple[int, int], stride: float, grid: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    backbone = TimmViT(DINOV2, pyramid_channels=0, token_stride=stride).requires_grad_(False)
    for parameter in backbone.net.patch_embed.parameters():
        parameter.zero_()  # tokens are their positions
    embeddings = backbone.net.pos_embed[0, 1:].unflatten(0, (37, 37)).double().numpy()
    rows, columns = (resampling(37, side) for side in grid)
    expected = np.einsum("hr,wc,rcd->hwd", rows, columns, embeddings, optimize=True)
    found = before_blocks(backbone, torch.zeros(1, 3, *size))[0].numpy()
    assert found.shape == (grid[0] * grid[1], 384)
    # Embeddings of standard deviation 0.02, float32 sums of some tens of products.
    np.testing.assert_allclose(found, expected.reshape(-1, 384), atol=1e-6)


def test_a_fractional_stride_sees_the_image_at_that_scale() -> None:
    backbone = backbone_of(DINOV2, token_stride=12.8)
    assert backbone.feature_specs == (FeatureSpec(384, Fraction(64, 5), 5.9),)
    image = image_of(64, 128)
    resampled = F.interpolate(image, size=(70, 140), mode="bilinear", align_corners=False)
    tokens = backbone.net.forward_features(resampled)[:, backbone.net.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (5, 10))
    torch.testing.assert_close(backbone(image)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(64, 128), (65, 97), (13, 26), (12, 300)])
def test_a_fractional_stride_makes_grids_that_cover_the_image(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = TimmViT("test_vit", pyramid_channels=4, token_stride=12.8).eval()
    strides = [Fraction(64, 5) * factor for factor in (Fraction(1, 4), Fraction(1, 2), 1, 2)]
    assert [spec.stride for spec in backbone.feature_specs] == strides
    with torch.no_grad():
        features = backbone(image_of(*size).float())
    labels = torch.zeros(1, *size)
    for level, spec in zip(features, backbone.feature_specs, strict=True):
        grid = tuple(int(np.ceil(side / float(spec.stride))) for side in size)
        assert tuple(level.shape[-2:]) == grid == spec.grid_of(size)
        assert tuple(labels_on_grid(labels, spec).shape[1:]) == grid
