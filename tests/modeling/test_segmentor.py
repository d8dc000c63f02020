"""What the segmentation network adds to backbone and head: normalisation, size, precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401
from t2sda.config import ConfigError, load_config
from t2sda.errors import UserError
from t2sda.modeling.backbones.base import Backbone
from t2sda.modeling.heads.base import Head
from t2sda.modeling.normalization import FrozenBatchNorm2d
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.structures import FeatureSpec


class Seen(Backbone):
    """Gives back the normalised image, at stride 4 by average pooling."""

    feature_specs = (FeatureSpec(3, 4),)
    pixel_mean = (100.0, 110.0, 120.0)
    pixel_std = (50.0, 60.0, 70.0)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        self.image = image
        return (F.avg_pool2d(image, 4),)


class OneConv(Head):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(3, num_classes, 1)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        return self.conv(features[0])


@pytest.fixture
def model() -> SegmentationModel:
    torch.manual_seed(0)
    return SegmentationModel(Seen(), OneConv(5))


def test_image_is_normalised_channel_by_channel(model: SegmentationModel) -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[:, 0], image[:, 1], image[:, 2] = 200, 50, 120
    model(image)
    seen = model.backbone.image[0, :, 3, 5]
    torch.testing.assert_close(seen, torch.tensor([2.0, -1.0, 0.0]))


def test_uint8_and_float_images_give_the_same(model: SegmentationModel) -> None:
    image = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    assert torch.equal(model(image), model(image.float()))


def test_normalisation_is_float32_under_autocast_and_logits_too(model: SegmentationModel) -> None:
    image = torch.full((1, 3, 8, 8), 101.0)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(image)
    assert model.backbone.image.dtype == torch.float32
    assert model.backbone.image[0, 0, 0, 0] == pytest.approx(1 / 50, rel=1e-6)
    assert logits.dtype == torch.float32


def test_logits_are_the_head_upsampled_to_the_image(model: SegmentationModel) -> None:
    image = torch.randint(0, 256, (2, 3, 18, 27), dtype=torch.uint8)
    logits = model(image)
    features = model.features(image)
    coarse = model.head(features.levels)
    assert logits.shape == (2, 5, 18, 27)
    expected = F.interpolate(coarse, (18, 27), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, expected)
    assert torch.equal(logits, model.logits(features))
    assert model.logits(features) is model.logits(features)  # computed once
    assert features.deepest is features.levels[-1]


def test_logits_asked_for_without_gradient_hide_none_from_the_loss(
    model: SegmentationModel,
) -> None:
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    features = model.features(image)
    with torch.no_grad():
        assert not model.logits(features).requires_grad
    model.loss(features, torch.zeros(1, 8, 8, dtype=torch.int64)).backward()
    assert model.head.conv.weight.grad is not None


def test_normalisation_travels_with_the_weights(model: SegmentationModel) -> None:
    class Other(Seen):
        pixel_mean = (0.0, 0.0, 0.0)

    other = SegmentationModel(Other(), OneConv(5))
    other.load_state_dict(model.state_dict(), strict=True)
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(other(image), model(image))


def test_default_configuration_builds_the_light_network() -> None:
    model = build_segmentation_model(load_config(None), num_classes=19).eval()
    with torch.no_grad():
        logits = model(torch.randint(0, 256, (1, 3, 33, 65), dtype=torch.uint8))
    assert logits.shape == (1, 19, 33, 65)
    assert model.num_classes == 19
    # four projections, two separable convolutions with BatchNorm, the classifier with its bias
    head = (24 + 40 + 112 + 320) * 128 + 2 * (128 * 9 + 128 * 128 + 2 * 128) + 19 * 129
    assert sum(parameter.numel() for parameter in model.head.parameters()) == head
    assert model.pixel_mean.flatten().tolist() == [127.5] * 3


def test_frozen_norm_is_for_the_backbone_alone() -> None:
    model = build_segmentation_model(load_config(None, ["MODEL.NORM", "frozen"]), num_classes=4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.backbone.modules())
    assert any(isinstance(module, FrozenBatchNorm2d) for module in model.backbone.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.head.modules()) == 2


@pytest.mark.parametrize("key", ["MODEL.BACKBONE.NAME", "MODEL.HEAD.NAME"])
def test_unknown_component_lists_the_known_ones(key: str) -> None:
    known = {"MODEL.BACKBONE.NAME": "TimmCNN", "MODEL.HEAD.NAME": "LightHead"}[key]
    with pytest.raises(ValueError, match=f"{key}.*{known}"):
        build_segmentation_model(load_config(None, [key, "Nothing"]), num_classes=4)


@torch.no_grad()
def test_image_smaller_than_a_cell_is_refused_with_the_nearest_size() -> None:
    keys = ["MODEL.BACKBONE.NAME", "MiT", "MODEL.BACKBONE.VARIANT", "b0"]
    model = build_segmentation_model(load_config(None, keys), 5).eval()
    with pytest.raises(UserError, match=r"image of 31x200 pixels: MiT .* fits is 32x200$"):
        model(torch.zeros(1, 3, 31, 200))
    assert model(torch.zeros(1, 3, 32, 33)).shape == (1, 5, 32, 33)


@pytest.mark.parametrize("kind", ["frozen", "frozen_affine"])
def test_freezing_batchnorm_that_is_not_there_is_an_error(kind: str) -> None:
    keys = ["MODEL.BACKBONE.NAME", "MiT", "MODEL.NORM", kind]
    with pytest.raises(UserError, match=f"MODEL.NORM: '{kind}' has no effect, this MiT has no Bat"):
        build_segmentation_model(load_config(None, keys), 5)
    convnext = ["MODEL.BACKBONE.TIMM_NAME", "test_convnext", "MODEL.NORM", kind]
    with pytest.raises(UserError, match=f"'{kind}' has no effect, this TimmCNN has no BatchNorm"):
        build_segmentation_model(load_config(None, convnext), 5)


@pytest.mark.parametrize("kind", ["frozen", "frozen_affine"])
@pytest.mark.parametrize(
    ("backbone", "tiny"), [("MiT", ("VARIANT", "b0")), ("TimmViT", ("TIMM_NAME", "test_vit"))]
)
def test_a_transformer_has_no_batchnorm_and_the_schema_knows(
    backbone: str, tiny: tuple[str, str], kind: str
) -> None:
    keys = ["MODEL.BACKBONE.NAME", backbone, f"MODEL.BACKBONE.{tiny[0]}", tiny[1]]
    with pytest.raises(ConfigError, match=f"this {backbone} has no BatchNorm; remove it"):
        load_config(None, [*keys, "MODEL.NORM", kind])
    built = build_segmentation_model(load_config(None, keys), 5).backbone
    assert not any(isinstance(module, nn.BatchNorm2d) for module in built.modules())


AUX_HEAD = ["MODEL.BACKBONE.TIMM_NAME", "test_resnet", "MODEL.HEAD.CHANNELS", "8"]
AUX_HEAD += ["MODEL.AUX_HEAD.NAME", "DeepLabV2Head", "MODEL.AUX_HEAD.WEIGHT", "0.25"]


def test_the_auxiliary_head_takes_part_in_the_loss_alone() -> None:
    torch.manual_seed(0)
    keys = [*AUX_HEAD, "MODEL.AUX_HEAD.LEVEL", "1", "MODEL.HEAD.DILATIONS", "[3]"]
    model = build_segmentation_model(load_config(None, keys), 5).eval()
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    labels = torch.randint(0, 5, (2, 64, 96))
    labels[0, :9] = 255
    weight, normalizer = torch.rand(2, 64, 96), torch.tensor(1000.0)
    features = model.features(image)
    found = model.loss(features, labels, weight, normalizer)
    coarse = model.aux_head.head([features.levels[1]])
    assert coarse.shape[-2:] == features.levels[1].shape[-2:]
    expected = torch.zeros(())
    for share, logits in (
        (1.0, model(image)),
        (0.25, F.interpolate(coarse, (64, 96), mode="bilinear")),
    ):
        pixels = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
        expected = expected + share * (pixels * weight).sum() / 1000
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(p.grad is not None for p in model.aux_head.parameters())
    model.aux_head = None
    assert torch.equal(model(image), model.logits(features))


def test_the_auxiliary_head_reads_a_level_there_is() -> None:
    keys = [*AUX_HEAD, "MODEL.AUX_HEAD.LEVEL", "4"]
    with pytest.raises(UserError, match="LEVEL: 4, but this TimmCNN has 4 levels, 0 to 3"):
        build_segmentation_model(load_config(None, keys), 5)


def test_settings_of_an_auxiliary_head_need_one() -> None:
    with pytest.raises(ConfigError, match=r"AUX_HEAD\.WEIGHT .*no effect.*NAME is set"):
        load_config(None, ["MODEL.AUX_HEAD.WEIGHT", "0.5"])
