"""Parameters of the heads have the names and shapes of the published checkpoints, in full."""

import torch

from t2sda.modeling.heads.daformer import DAFormerHead
from t2sda.modeling.heads.deeplabv2 import DeepLabV2Head
from t2sda.modeling.heads.segformer import SegFormerHead
from t2sda.structures import FeatureSpec

MIT_B5 = tuple(map(FeatureSpec, (64, 128, 320, 512), (4, 8, 16, 32)))


def shapes_of(head: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}


def conv_bn(name: str, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """A convolution without bias and its BatchNorm, as mmcv's ConvModule names them."""
    channels = (weight[0],)
    return {
        f"{name}.conv.weight": weight,
        f"{name}.bn.weight": channels,
        f"{name}.bn.bias": channels,
        f"{name}.bn.running_mean": channels,
        f"{name}.bn.running_var": channels,
        f"{name}.bn.num_batches_tracked": (),
    }


def test_daformer() -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for level, channels in enumerate((64, 128, 320, 512)):
        expected[f"embed_layers.{level}.proj.weight"] = (256, channels)
        expected[f"embed_layers.{level}.proj.bias"] = (256,)
    aspp = "fuse_layer.aspp_modules"
    expected |= conv_bn(f"{aspp}.0", (256, 1024, 1, 1))
    for branch in (1, 2, 3):
        expected |= conv_bn(f"{aspp}.{branch}.depthwise_conv", (1024, 1, 3, 3))
        expected |= conv_bn(f"{aspp}.{branch}.pointwise_conv", (256, 1024, 1, 1))
    expected |= conv_bn("fuse_layer.bottleneck", (256, 1024, 3, 3))
    expected |= {"conv_seg.weight": (19, 256, 1, 1), "conv_seg.bias": (19,)}
    assert shapes_of(DAFormerHead(MIT_B5, 19, channels=256)) == expected


def test_segformer() -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for level, channels in enumerate((64, 128, 320, 512)):
        expected[f"linear_c.{level}.proj.weight"] = (768, channels)
        expected[f"linear_c.{level}.proj.bias"] = (768,)
    expected |= conv_bn("linear_fuse", (768, 3072, 1, 1))
    expected |= {"linear_pred.weight": (19, 768, 1, 1), "linear_pred.bias": (19,)}
    assert shapes_of(SegFormerHead(MIT_B5, 19, channels=768)) == expected


def test_deeplabv2() -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for index in range(4):
        expected[f"aspp_modules.{index}.conv.weight"] = (19, 2048, 3, 3)
        expected[f"aspp_modules.{index}.conv.bias"] = (19,)
    resnet = (FeatureSpec(1024, 8), FeatureSpec(2048, 8))
    assert shapes_of(DeepLabV2Head(resnet, 19, dilations=(6, 12, 18, 24))) == expected
    reduced = shapes_of(DeepLabV2Head(resnet, 19))
    assert set(reduced) == {name for name in expected if ".0." in name or ".1." in name}


def test_classifiers_start_near_equal_probabilities() -> None:
    deeplab = DeepLabV2Head(MIT_B5, 19).aspp_modules
    classifiers = [
        DAFormerHead(MIT_B5, 19, channels=256).conv_seg,
        SegFormerHead(MIT_B5, 19, channels=768).linear_pred,
        *(branch.conv for branch in deeplab),
    ]
    for classifier in classifiers:
        # 0.01, from at least 4864 draws: five standard errors of a standard deviation
        assert abs(classifier.weight.std().item() / 0.01 - 1) < 5 / (2 * 4864) ** 0.5
        assert not classifier.bias.any()


def test_dilations_are_those_of_the_published_heads() -> None:
    daformer = DAFormerHead(MIT_B5, 19).fuse_layer.aspp_modules
    assert [branch.depthwise_conv.conv.dilation for branch in daformer[1:]] == [
        (6, 6),
        (12, 12),
        (18, 18),
    ]
    deeplab = DeepLabV2Head(MIT_B5, 19).aspp_modules
    assert [branch.conv.dilation for branch in deeplab] == [(6, 6), (12, 12)]
