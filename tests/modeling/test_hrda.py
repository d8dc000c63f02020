"""HRDA: what is fused, which crops are seen, and what the loss and the windows are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import t2sda.builtin  # noqa: F401
from t2sda.config import ConfigError, load_config
from t2sda.errors import UserError
from t2sda.modeling.hrda import HRDA, Box, covering, draw_box
from t2sda.modeling.segmentor import build_segmentation_model
from t2sda.registry import MODELS
from tests.components import components_restored
from tests.references import hrda as reference
from tests.references.segmentation import cross_entropy

NUM_CLASSES = 3
STRIDE = 4
KEYS = [
    *("MODEL.NAME", "HRDA", "MODEL.BACKBONE.TIMM_NAME", "test_resnet", "MODEL.HEAD.CHANNELS", "8"),
    *("MODEL.HRDA.DETAIL_SIZE", "[64, 64]", "MODEL.HRDA.WINDOW_SIZE", "[128, 128]"),
    *("MODEL.HEAD.DROPOUT", "0.0"),
]


def built(*keys: str) -> HRDA:
    torch.manual_seed(0)
    model = build_segmentation_model(load_config(None, [*KEYS, *keys]), NUM_CLASSES)
    for module in model.modules():  # begins at N(0, 0.01): too even to tell a mistake
        if isinstance(module, nn.Conv2d) and module.out_channels == NUM_CLASSES:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.double()


@pytest.fixture
def model() -> HRDA:
    return built().eval()


def image_of(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def parts_of(model: HRDA, image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Logits and attention of the context of one image, (C, h, w) each."""
    context = torch.from_numpy(reference.context_of(image[0].double().numpy()))[None]
    levels = model.backbone((context - model.pixel_mean) / model.pixel_std)
    return model.head(levels)[0].numpy(), model.attention(levels)[0].sigmoid().numpy()


def detail_of(model: HRDA, image: Tensor, box: tuple[int, int, int, int]) -> np.ndarray:
    """Logits of a box of one image, (C, h, w)."""
    top, left, height, width = box
    crop = image[..., top : top + height, left : left + width].double()
    return model.head(model.backbone((crop - model.pixel_mean) / model.pixel_std))[0].numpy()


def whole_of(model: HRDA, image: Tensor) -> np.ndarray:
    """The slow way of a whole window: details window by window."""
    size = (image.shape[2], image.shape[3])
    side = 64
    corners = reference.window_corners(size, (side, side), (side // 2, side // 2))
    details = [detail_of(model, image, (top, left, side, side)) for top, left in corners]
    on_grid = [(top // STRIDE, left // STRIDE) for top, left in corners]
    grid = (size[0] // STRIDE, size[1] // STRIDE)
    detail = reference.averaged(details, on_grid, grid)
    context, attention = parts_of(model, image)
    return reference.fused(context, detail, attention, STRIDE)


@torch.no_grad()
def test_students_fuse_the_context_and_one_box_as_the_slow_reference(model: HRDA) -> None:
    image = image_of(128, 192)
    features = model.features(image, torch.Generator().manual_seed(3))
    context, attention = parts_of(model, image)
    assert features.box is not None
    box = tuple(features.box)
    assert box[:2] != (0, 0)
    detail = detail_of(model, image, box)
    expected = reference.fused_in_box(context, detail, attention, box, STRIDE)
    np.testing.assert_allclose(model.logits(features)[0].numpy(), expected, atol=1e-10)


@torch.no_grad()
def test_the_loss_is_that_of_the_fused_logits_and_of_the_details() -> None:
    model = built("MODEL.HRDA.DETAIL_WEIGHT", "0.3").eval()
    image = image_of(64, 128, count=2)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, NUM_CLASSES, (2, 64, 128), generator=generator)
    labels[0, 10:40, 30:90] = 255
    weight = torch.rand((2, 64, 128), generator=generator, dtype=torch.float64)
    features = model.features(image, generator)
    top, left, height, width = box = features.box
    inside = (slice(None), slice(top, top + height), slice(left, left + width))
    details = np.stack([detail_of(model, image[index : index + 1], box) for index in range(2)])
    enlarged = np.stack([reference.enlarged(detail, STRIDE) for detail in details])
    fused = cross_entropy(model.logits(features).numpy(), labels.numpy(), weight.numpy())
    detail = cross_entropy(enlarged, labels[inside].numpy(), weight[inside].numpy())
    expected = pytest.approx(0.7 * fused + 0.3 * detail, rel=1e-10)
    assert model.loss(features, labels, weight).item() == expected
    # A denominator of all ranks' pixels stands for its share in the box too.
    normalizer = torch.tensor(2.0 * labels.numel())
    assert model.loss(features, labels, weight, normalizer).item() * 2 == expected


@torch.no_grad()
def test_the_teacher_sees_overlapping_windows_as_the_slow_reference(model: HRDA) -> None:
    image = image_of(128, 192)
    found = model.logits(model.features(image))[0].numpy()
    np.testing.assert_allclose(found, whole_of(model, image), atol=1e-10)


@torch.no_grad()
def test_evaluation_slides_over_images_larger_than_a_window_as_the_slow_reference(
    model: HRDA,
) -> None:
    image = image_of(131, 200)
    corners = reference.window_corners((131, 200), (128, 128), (64, 64))
    assert corners == [(0, 0), (0, 64), (0, 72), (3, 0), (3, 64), (3, 72)]
    windows = [
        whole_of(model, image[..., top : top + 128, left : left + 128]) for top, left in corners
    ]
    expected = reference.averaged(windows, corners, (131, 200))
    np.testing.assert_allclose(model(image)[0].numpy(), expected, atol=1e-10)


@torch.no_grad()
def test_a_window_is_taken_at_once_and_small_images_are_continued(model: HRDA) -> None:
    image = image_of(128, 128)
    assert torch.equal(model(image), model.logits(model.features(image)))
    small = image_of(33, 128, count=2)
    filled = torch.cat([small, small[:, :, -1:].expand(-1, -1, 95, -1)], dim=2)
    assert torch.equal(model(small), model(filled)[:, :, :33])
    assert model(image_of(1, 300)).shape == (1, NUM_CLASSES, 1, 300)


def set_attention_(model: HRDA, value: float) -> None:
    """An attention of 0 or 1 everywhere."""
    nn.init.zeros_(model.attention.linear_pred.weight)
    nn.init.constant_(model.attention.linear_pred.bias, 1000 * (2 * value - 1))


@torch.no_grad()
def test_without_attention_the_context_is_all_there_is(model: HRDA) -> None:
    set_attention_(model, 0.0)
    image = image_of(128, 128)
    context, _ = parts_of(model, image)
    expected = reference.enlarged(reference.enlarged(context, 2), STRIDE)
    for generator in (None, torch.Generator().manual_seed(0)):
        found = model.logits(model.features(image, generator))[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-10)


@torch.no_grad()
def test_with_full_attention_the_details_are_all_there_is(model: HRDA) -> None:
    set_attention_(model, 1.0)
    image = image_of(64, 64)
    detail = reference.enlarged(detail_of(model, image, (0, 0, 64, 64)), STRIDE)
    found = model.logits(model.features(image))[0].numpy()
    np.testing.assert_allclose(found, detail, atol=1e-10)
    # Of a box's inside alone, and the context far from it; in between they fade into each other.
    image = image_of(128, 192)
    features = model.features(image, torch.Generator().manual_seed(0))
    box = features.box
    assert box is not None
    detail = reference.enlarged(detail_of(model, image, box), STRIDE)
    context = reference.enlarged(reference.enlarged(parts_of(model, image)[0], 2), STRIDE)
    found = model.logits(features)[0].numpy()
    inner = slice(8, -8)
    np.testing.assert_allclose(
        box.of(torch.from_numpy(found)).numpy()[:, inner, inner], detail[:, inner, inner], atol=1e-9
    )
    outside = np.ones((128, 192), dtype=bool)
    outside[
        max(box.top - 8, 0) : box.top + box.height + 8,
        max(box.left - 8, 0) : box.left + box.width + 8,
    ] = False
    assert outside.any()
    np.testing.assert_allclose(found[:, outside], context[:, outside], atol=1e-9)


def test_the_gradient_reaches_both_scales_and_the_attention() -> None:
    model = built("MODEL.HRDA.DETAIL_WEIGHT", "0.0").train()
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, levels: tuple[Tensor, ...]) -> None:
        for level in levels:
            level.retain_grad()
        outputs.extend(levels)

    model.backbone.register_forward_hook(keep)
    features = model.features(image_of(128, 128), torch.Generator().manual_seed(0))
    model.loss(features, torch.zeros(1, 128, 128, dtype=torch.long)).backward()
    assert len(outputs) == 2 * len(model.feature_specs)
    assert all(level.grad.abs().sum() > 0 for level in outputs)
    assert all(p.grad is not None and p.grad.any() for p in model.attention.parameters())


def test_boxes_lie_on_the_grid_and_the_last_offset_is_never_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = [draw_box((64, 96), (32, 32), 8, generator) for _ in range(300)]
    assert {box.top for box in boxes} == {0, 8, 16, 24}
    assert {box.left for box in boxes} == set(range(0, 64, 8))
    assert {box[2:] for box in boxes} == {(32, 32)}
    assert draw_box((64, 64), (64, 64), 8, generator) == Box(0, 0, 64, 64)
    # docs/fidelity.md, A8: 0 to 504 in a crop of 1024.
    offsets = {draw_box((1024, 1024), (512, 512), 8, generator).top for _ in range(3000)}
    assert offsets == set(range(0, 505, 8))


def test_a_box_follows_from_the_generator_alone(model: HRDA) -> None:
    image = image_of(128, 192)
    boxes = [model.features(image, torch.Generator().manual_seed(seed)).box for seed in (5, 5, 6)]
    assert boxes[0] == boxes[1] != boxes[2]
    assert model.features(image).box is None


class Counter:
    """Shapes of what a module was given."""

    def __init__(self, module: nn.Module) -> None:
        self.shapes: list[tuple[int, ...]] = []
        module.register_forward_pre_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any) -> None:
        first = inputs[0]
        self.shapes.append(tuple((first if isinstance(first, Tensor) else first[0]).shape))


@torch.no_grad()
def test_all_windows_of_an_image_are_one_batch(model: HRDA) -> None:
    backbone, head = Counter(model.backbone), Counter(model.head)
    model(image_of(128, 128, count=2))
    assert backbone.shapes == [(2, 3, 64, 64), (18, 3, 64, 64)]
    assert [shape[0] for shape in head.shapes] == [2, 18]


@torch.no_grad()
def test_whoever_reads_no_logits_pays_for_the_context_alone(model: HRDA) -> None:
    backbone = Counter(model.backbone)
    features = model.features(image_of(128, 128), torch.Generator().manual_seed(0))
    assert features.deepest.shape[-2:] == (2, 2)
    assert backbone.shapes == [(1, 3, 64, 64)]
    first = model.logits(features)
    assert backbone.shapes == [(1, 3, 64, 64)] * 2
    assert model.logits(features) is first
    assert len(backbone.shapes) == 2


@torch.no_grad()
def test_levels_are_those_of_the_context_in_pixels_of_the_image(model: HRDA) -> None:
    plain = model.backbone.feature_specs
    assert [spec.stride for spec in model.feature_specs] == [2 * spec.stride for spec in plain]
    # The first cell's center, offset of a pixel of the context: 2 o + 1/2 pixels of the image.
    assert [s.offset for s in model.feature_specs] == [2 * spec.offset + 0.5 for spec in plain]
    image = image_of(128, 192)
    features = model.features(image)
    for level, spec in zip(features.levels, model.feature_specs, strict=True):
        assert level.shape[1:] == (spec.channels, 128 // spec.stride, 192 // spec.stride)
    assert torch.equal(model.deepest_features(image, model.backbone), features.deepest)


def test_the_auxiliary_head_reads_the_context() -> None:
    model = built("MODEL.AUX_HEAD.NAME", "LightHead", "MODEL.AUX_HEAD.WEIGHT", "0.5").eval()
    labels = torch.zeros(1, 128, 128, dtype=torch.long)
    features = model.features(image_of(128, 128), torch.Generator().manual_seed(0))
    auxiliary = F.interpolate(model.aux_head(features.levels), (128, 128), mode="bilinear")
    expected = model.output_loss(features, labels) + 0.5 * F.cross_entropy(auxiliary, labels)
    torch.testing.assert_close(model.loss(features, labels), expected)


def test_checkpointed_activations_give_the_same_numbers_bit_by_bit() -> None:
    results = []
    for checkpointing in ("false", "true"):
        keys = ["MODEL.BACKBONE.NAME", "MiT", "MODEL.BACKBONE.VARIANT", "b0"]
        keys += ["MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS", checkpointing]
        shipped = [key for key in KEYS if key not in ("MODEL.BACKBONE.TIMM_NAME", "test_resnet")]
        torch.manual_seed(0)
        cfg = load_config(None, [*shipped, *keys, "MODEL.BACKBONE.DROP_PATH", "0.3"])
        model = build_segmentation_model(cfg, NUM_CLASSES).train()
        torch.manual_seed(1)
        features = model.features(image_of(128, 128, 2), torch.Generator().manual_seed(0))
        loss = model.loss(features, torch.zeros(2, 128, 128, dtype=torch.long))
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


def test_all_is_fused_in_float32_under_autocast() -> None:
    model = built().float().train()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(image_of(128, 128), torch.Generator().manual_seed(0))
        loss = model.loss(features, torch.zeros(1, 128, 128, dtype=torch.long))
    assert features.deepest.dtype == torch.bfloat16
    assert model.logits(features).dtype == loss.dtype == torch.float32


def test_windows_cover_an_image_and_end_at_its_border() -> None:
    assert [tuple(box) for box in covering((8, 20), (8, 8), (4, 4))] == [
        (0, left, 8, 8) for left in (0, 4, 8, 12)
    ]
    assert covering((6, 8), (8, 8), (4, 4)) == [Box(0, 0, 6, 8)]
    # 3 windows of a Cityscapes image, 9 of details in each (docs/fidelity.md, A8).
    assert len(covering((1024, 2048), (1024, 1024), (512, 512))) == 3
    assert len(covering((1024, 1024), (512, 512), (256, 256))) == 9


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["MODEL.HRDA.DETAIL_SIZE", "[60, 64]"], r"DETAIL_SIZE of 60x64 .*multiples of 8"),
        (["MODEL.HRDA.WINDOW_SIZE", "[128, 130]"], r"WINDOW_SIZE of 128x130 .*as 128x128"),
        (["MODEL.HRDA.ATTENTION", "DeepLabV2Head"], "ATTENTION: DeepLabV2Head is on another grid"),
    ],
)
def test_what_does_not_lie_on_the_grid_is_refused(keys: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(*keys)


def test_a_crop_off_the_grid_is_refused(model: HRDA) -> None:
    with pytest.raises(UserError, match=r"image of 100x128 .*multiples of 8, such as 96x128"):
        model.features(image_of(100, 128), torch.Generator())


@pytest.mark.parametrize("key", ["DATA.CROP_SIZE", "MODEL.HRDA.WINDOW_SIZE"])
def test_details_larger_than_the_whole_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"DETAIL_SIZE: \[64, 64\] is larger than {key}"):
        load_config(None, [*KEYS, key, "[128, 32]"])


def test_settings_of_hrda_need_it() -> None:
    with pytest.raises(ConfigError, match=r"DETAIL_WEIGHT .*no effect.*MODEL\.NAME is HRDA"):
        load_config(None, ["MODEL.HRDA.DETAIL_WEIGHT", "0.2"])


def test_a_network_of_stride_8_has_boxes_on_its_own_grid() -> None:
    keys = [*KEYS[:2], "MODEL.BACKBONE.NAME", "ResNetV1c", "MODEL.BACKBONE.DEPTH", "18"]
    keys += ["MODEL.HEAD.NAME", "DeepLabV2Head", "MODEL.HRDA.ATTENTION", "DeepLabV2Head"]
    keys += KEYS[6:10]
    model = build_segmentation_model(load_config(None, keys), NUM_CLASSES)
    assert (model.stride, model.cell) == (8, 16)
    features = model.features(image_of(128, 128), torch.Generator().manual_seed(0))
    assert features.box is not None
    assert all(side % 16 == 0 for side in features.box)
    assert model.logits(features).shape == (1, NUM_CLASSES, 128, 128)


def test_a_derived_class_has_the_settings() -> None:
    with components_restored():

        @MODELS.register()
        class Mine(HRDA):
            pass

        cfg = load_config(None, ["MODEL.NAME", "Mine", *KEYS[2:]])
        assert isinstance(build_segmentation_model(cfg, NUM_CLASSES), Mine)
