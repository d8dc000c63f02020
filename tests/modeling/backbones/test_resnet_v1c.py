"""ResNet-v1c against torchvision's dilated ResNet, its stem by hand, mmsegmentation's names."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from t2sda.modeling.backbones.resnet_v1c import ResNetV1c
from t2sda.modeling.backbones.timm_import import declare_missing_torchvision_operators
from t2sda.modeling.backbones.timm_networks import create_timm_network
from t2sda.modeling.meta_device import on_meta_device
from t2sda.structures import FeatureSpec


def randomise_(module: torch.nn.Module) -> None:
    """No two channels alike: BatchNorms too, and the last of a block is not zero."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif "bn" in name or "downsample.1" in name:
                tensor.copy_(torch.randn(tensor.shape) * 0.2 + 0.5)


@pytest.fixture
def backbone() -> ResNetV1c:
    backbone = ResNetV1c(50).eval()
    randomise_(backbone)
    return backbone


@torch.no_grad()
def test_body_is_torchvisions_dilated_resnet(backbone: ResNetV1c) -> None:
    declare_missing_torchvision_operators()
    from torchvision.models import resnet50

    reference: Any = resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    own = {
        name: tensor
        for name, tensor in backbone.net.state_dict().items()
        if name.startswith("layer")
    }
    missing, unexpected = reference.load_state_dict(own, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith("layer")]
    net: Any = backbone.net
    image = torch.randn(1, 3, 65, 97)
    level = net.maxpool(stem_by_hand(net.state_dict(), image))
    expected = []
    for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        level = layer(level)
        expected.append(level)
    for found, reference_level in zip(backbone(image), expected, strict=True):
        scale = float(reference_level.abs().max())
        torch.testing.assert_close(found, reference_level, atol=1e-5 * scale, rtol=0)


def stem_by_hand(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """Three 3x3 convolutions to 32, 32 and 64 channels, BatchNorm and ReLU after each."""
    features = image
    for conv, norm, stride in (
        ("conv1.0", "conv1.1", 2),
        ("conv1.3", "conv1.4", 1),
        ("conv1.6", "bn1", 1),
    ):
        features = F.conv2d(features, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = (state[f"{norm}.running_{name}"][:, None, None] for name in ("mean", "var"))
        scale, shift = (state[f"{norm}.{name}"][:, None, None] for name in ("weight", "bias"))
        features = torch.relu((features - mean) / torch.sqrt(var + 1e-5) * scale + shift)
    return features


def test_dilations_and_strides_are_those_of_deeplab() -> None:
    net: Any = ResNetV1c(50).net
    convs = {name: (conv.stride[0], conv.dilation[0]) for name, conv in net.named_modules()
             if name.endswith("conv2")}  # fmt: skip
    assert convs["layer2.0.conv2"] == (2, 1)
    assert convs["layer3.0.conv2"] == (1, 1)  # contracted: the dilation of the stage before
    assert convs["layer3.1.conv2"] == (1, 2)
    assert convs["layer4.0.conv2"] == (1, 2)
    assert convs["layer4.1.conv2"] == convs["layer4.2.conv2"] == (1, 4)


@pytest.mark.parametrize(("depth", "last"), [(18, 512), (50, 2048), (101, 2048)])
def test_strides_repeat_at_output_stride_8(depth: int, last: int) -> None:
    with on_meta_device():
        specs = ResNetV1c(depth).feature_specs
    assert [spec.stride for spec in specs] == [4, 8, 8, 8]
    assert specs[-1] == FeatureSpec(last, 8)


def test_weights_of_timm_and_of_mmsegmentation_are_read(backbone: ResNetV1c) -> None:
    classifier = create_timm_network("resnet50c").state_dict()
    report = backbone.load_pretrained(classifier, "timm")
    assert set(report.dropped) == {"fc.weight", "fc.bias"}
    other = ResNetV1c(50)
    other.load_pretrained(mmsegmentation_names(classifier), "mmsegmentation")
    for name, tensor in other.net.state_dict().items():
        assert torch.equal(tensor, classifier[name]), name


def mmsegmentation_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`conv1.N` is `stem.N` there, and its last BatchNorm `stem.7`."""
    renamed = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        renamed[{"conv1": "stem", "bn1": "stem.7"}.get(first, first) + "." + rest] = tensor
    return renamed


def test_weights_with_a_plain_stem_are_refused(backbone: ResNetV1c) -> None:
    state = create_timm_network("resnet50").state_dict()
    with pytest.raises(ValueError, match=r"'plain\.pth' do not fit .*conv1\.0\.weight"):
        backbone.load_pretrained(state, "plain.pth")
