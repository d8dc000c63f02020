"""Plain transformers of timm: the features are timm's, positions follow the size of the image."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.modeling.backbones.timm_networks import create_timm_network
from t2sda.modeling.backbones.timm_vit import TimmViT
from t2sda.weights import licences

DINOV2 = "vit_small_patch14_dinov2.lvd142m"
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"


def image_of(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def before_pyramid(backbone: TimmViT, image: Tensor) -> Tensor:
    """What the transformer hands to the pyramid."""
    seen = []
    handle = backbone.pyramid.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone(image)
    handle.remove()
    return seen[0]


@torch.no_grad()
def test_features_are_those_of_the_whole_classifier_at_its_own_size() -> None:
    classifier = create_timm_network("test_vit").eval()
    backbone = TimmViT("test_vit").eval()
    report = backbone.load_pretrained(classifier.state_dict(), "classifier")
    assert set(report.dropped) == {"head.weight", "head.bias"}
    image = image_of(160, 160)
    tokens = classifier.forward_features(image)[:, classifier.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (10, 10))
    torch.testing.assert_close(before_pyramid(backbone, image), expected)


@torch.no_grad()
def test_position_embeddings_are_resampled_to_the_grid() -> None:
    backbone = TimmViT("test_vit").eval()
    embeddings = backbone.net.pos_embed.detach().clone()  # (1, prefix + 100, D) of a 10 x 10 grid
    prefix = embeddings.shape[1] - 100
    grid = embeddings[:, prefix:].transpose(1, 2).unflatten(2, (10, 10))
    expected = F.interpolate(grid, size=(4, 6), mode="bicubic", antialias=True)
    fixed = create_timm_network("test_vit", num_classes=0, img_size=(64, 96)).eval()
    state = backbone.net.state_dict()
    state["pos_embed"] = torch.cat(
        [embeddings[:, :prefix], expected.flatten(2).transpose(1, 2)], dim=1
    )
    fixed.load_state_dict(state)
    image = image_of(64, 96)
    tokens = fixed.forward_features(image)[:, prefix:]
    torch.testing.assert_close(
        before_pyramid(backbone, image),
        tokens.transpose(1, 2).unflatten(2, (4, 6)),
        atol=1e-5,
        rtol=1e-4,
    )


@torch.no_grad()
def test_patches_of_14_see_the_image_at_14_16_of_its_size() -> None:
    backbone = TimmViT(DINOV2, pyramid_channels=8).eval()
    assert [spec.stride for spec in backbone.feature_specs] == [4, 8, 16, 32]
    image = image_of(64, 96)
    resampled = F.interpolate(image, size=(56, 84), mode="bilinear", align_corners=False)
    tokens = backbone.net.forward_features(resampled)[:, backbone.net.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(before_pyramid(backbone, image), expected)


def test_odd_sizes_lose_no_border() -> None:
    backbone = TimmViT("test_vit", pyramid_channels=8).eval()
    image = image_of(65, 97).requires_grad_()
    features = backbone(image)
    assert [tuple(level.shape[-2:]) for level in features] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    features[2][:, 0, -1, -1].sum().backward()
    assert image.grad is not None
    assert image.grad[..., -1, -1].all()


def test_rotary_transformer_takes_any_size_and_says_its_licence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    licences.note.cache_clear()
    backbone = TimmViT(DINOV3, pyramid_channels=8).eval()
    backbone.load_pretrained(create_timm_network(DINOV3).state_dict(), "dinov3")
    assert "DINOv3 License" in caplog.text
    with torch.no_grad():
        features = backbone(image_of(33, 70))
    assert [tuple(level.shape[-2:]) for level in features] == [(9, 18), (5, 9), (3, 5), (2, 3)]


def test_normalisation_is_that_of_the_weights() -> None:
    assert TimmViT(DINOV2).pixel_mean == pytest.approx((123.675, 116.28, 103.53))
    assert TimmViT("test_vit").pixel_mean == pytest.approx((127.5, 127.5, 127.5))


# test_vit2 pools by average into a norm of its own, test_vit3 by attention.
@pytest.mark.parametrize("timm_name", ["test_vit2", "test_vit3"])
def test_what_only_a_classifier_reads_is_left_out(timm_name: str) -> None:
    backbone = TimmViT(timm_name, pyramid_channels=8)
    torch.stack([level.square().sum() for level in backbone(image_of(32, 48))]).sum().backward()
    assert [name for name, item in backbone.named_parameters() if item.grad is None] == []
    report = backbone.load_pretrained(create_timm_network(timm_name).state_dict(), "classifier")
    assert {"head.weight", "head.bias"} < set(report.dropped)


@pytest.mark.parametrize(
    "timm_name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_small_r26_s32_224"]
)
def test_other_networks_are_refused(timm_name: str) -> None:
    with pytest.raises(ValueError, match=f"'{timm_name}' is no plain vision transformer; take"):
        TimmViT(timm_name)
