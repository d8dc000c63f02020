"""The adapter against timm itself: same features, same weights, clear refusals."""

import pytest
import torch
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401
from t2sda.config import load_config
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.backbones.timm_networks import create_timm_network
from t2sda.structures import FeatureSpec
from t2sda.weights import licences

# One of each way timm turns a classifier into features: names kept, joined, under `model.`.
NETWORKS = ("tf_efficientnet_lite0", "resnet18", "convnext_atto", "cspnext_tiny")


def image_of(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def pair(timm_name: str) -> tuple[TimmCNN, nn.Module]:
    """A classifier and the backbone with its weights."""
    classifier = create_timm_network(timm_name).eval()
    backbone = TimmCNN(timm_name).eval()
    report = backbone.load_pretrained(classifier.state_dict(), "classifier")
    assert set(report.loaded) == backbone.net.state_dict().keys()
    assert report.dropped
    return backbone, classifier


@torch.no_grad()
@pytest.mark.parametrize("timm_name", NETWORKS)
def test_features_are_those_of_the_whole_classifier(timm_name: str) -> None:
    backbone, classifier = pair(timm_name)
    image = image_of(64, 96)
    expected = classifier.forward_intermediates(image, intermediates_only=True)[-4:]
    for level, reference in zip(backbone(image), expected, strict=True):
        torch.testing.assert_close(level, reference)


@torch.no_grad()
def test_network_that_rounds_up_sees_an_odd_image_as_it_is() -> None:
    backbone, classifier = pair("resnet18")
    image = image_of(65, 97)
    expected = classifier.forward_intermediates(image, intermediates_only=True)[-4:]
    for level, reference in zip(backbone(image), expected, strict=True):
        torch.testing.assert_close(level, reference)


def test_patch_network_loses_no_border_of_an_odd_image() -> None:
    torch.manual_seed(0)
    backbone = TimmCNN("convnext_atto").eval()
    image = image_of(65, 97).requires_grad_()
    features = backbone(image)
    assert [tuple(level.shape[-2:]) for level in features] == [(17, 25), (9, 13), (5, 7), (3, 4)]
    # One channel, not the sum: after LayerNorm the sum over channels is constant.
    features[0][:, 0, -1, -1].sum().backward()
    assert image.grad is not None
    assert image.grad[..., -1, -1].all()


def test_licence_of_dinov3_is_said_for_its_convolutional_networks_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    licences.note.cache_clear()
    for timm_name, said in (
        ("convnext_tiny.in12k", False),
        ("convnext_tiny.dinov3_lvd1689m", True),
    ):
        backbone = TimmCNN(timm_name)
        backbone.load_pretrained(create_timm_network(timm_name).state_dict(), timm_name)
        assert ("DINOv3 License" in caplog.text) is said


def test_default_is_efficientnet_lite0_with_its_own_normalisation() -> None:
    backbone = TimmCNN.from_config(load_config(None))
    assert backbone.feature_specs == (
        FeatureSpec(24, 4, offset=3),
        FeatureSpec(40, 8, offset=7),
        FeatureSpec(112, 16, offset=15),
        FeatureSpec(320, 32, offset=31),
    )
    assert backbone.pixel_mean == backbone.pixel_std == (127.5, 127.5, 127.5)


def test_normalisation_is_imagenets_for_resnet() -> None:
    backbone = TimmCNN("resnet18")
    assert backbone.pixel_mean == pytest.approx((123.675, 116.28, 103.53))
    assert backbone.pixel_std == pytest.approx((58.395, 57.12, 57.375))


def test_levels_can_be_chosen() -> None:
    cfg = load_config(
        None, ["MODEL.BACKBONE.TIMM_NAME", "resnet18", "MODEL.BACKBONE.OUT_INDICES", "[0, 2]"]
    )
    backbone = TimmCNN.from_config(cfg)
    assert backbone.feature_specs == (FeatureSpec(64, 2), FeatureSpec(128, 8))


@torch.no_grad()
@pytest.mark.parametrize("timm_name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto"])
def test_the_last_stages_can_be_dilated_instead_with_the_same_weights(timm_name: str) -> None:
    settings = ["MODEL.BACKBONE.TIMM_NAME", timm_name, "MODEL.BACKBONE.OUTPUT_STRIDE", "8"]
    backbone = TimmCNN.from_config(load_config(None, settings)).eval()
    assert [spec.stride for spec in backbone.feature_specs] == [4, 8, 8, 8]
    backbone.load_pretrained(create_timm_network(timm_name).state_dict(), timm_name)
    shapes = [tuple(level.shape[-2:]) for level in backbone(image_of(65, 97))]
    assert shapes == [(17, 25), (9, 13), (9, 13), (9, 13)]


@torch.no_grad()
def test_drop_path_makes_training_random_and_only_training() -> None:
    torch.manual_seed(0)
    image = image_of(64, 64)
    # Not a ResNet: its residual branches start at zero, so dropping one would change nothing.
    name = "tf_efficientnet_lite0"
    still, dropping = TimmCNN(name).train(), TimmCNN(name, drop_path=0.5).train()
    assert torch.equal(still(image)[-1], still(image)[-1])
    assert not torch.equal(dropping(image)[-1], dropping(image)[-1])
    dropping.eval()
    assert torch.equal(dropping(image)[-1], dropping(image)[-1])


def test_weights_setting_is_loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    classifier = create_timm_network("resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(classifier.state_dict(), path)
    keys = ["MODEL.BACKBONE.TIMM_NAME", "resnet18", "MODEL.BACKBONE.WEIGHTS", str(path)]
    backbone = TimmCNN.from_config(load_config(None, keys))
    expected, found = classifier.state_dict(), backbone.net.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_weights_of_another_network_are_refused() -> None:
    state = create_timm_network("resnet34").state_dict()
    with pytest.raises(
        ValueError, match=r"'r34\.pth' do not fit .* unknown to the network \(first"
    ):
        TimmCNN("resnet18").load_pretrained(state, "r34.pth")


@pytest.mark.parametrize(
    ("timm_name", "options", "message"),
    [
        (
            "resnet1O1",
            {},
            r"TIMM_NAME: timm .* no network called 'resnet1O1'; nearest: .*resnet101",
        ),
        ("vgg11", {"output_stride": 8}, r"timm cannot build 'vgg11' with .*AssertionError"),
        ("vit_tiny_patch16_224", {}, r"no feature pyramid of strides .* have \(16, 16, 16\)"),
        ("swin_tiny_patch4_window7_224", {}, "no convolutional feature pyramid for any size"),
        ("resnet18", {"out_indices": (3, 1)}, r"OUT_INDICES.* \(16, 4\).* finest first"),
        ("resnet18", {"out_indices": (1, 9)}, "cannot build 'resnet18' with .*index out of range"),
        ("vgg11", {"drop_path": 0.1}, "cannot build 'vgg11' with .*drop_path_rate=0.1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(
    timm_name: str, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TimmCNN(timm_name, **options)
