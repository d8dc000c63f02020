"""Color jitter and blur against the standard library's colorsys, Pillow and plain loops."""

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from t2sda.losses.augmentation import (
    Augmentation,
    AugmentationSettings,
    ColorJitter,
    augment,
    color_jitter,
    current_color_jitter,
    draw_augmentations,
    draw_photometric,
    draw_source_jitter,
    gaussian_blur,
    photometric_distortion,
    rotate_hue,
    scale_saturation,
)


def _image(seed: int = 0, height: int = 12, width: int = 9) -> Tensor:
    """Random colors, with gray, black, white and two tied channels among them."""
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 255
    image[:, 0, 0], image[:, 0, 1], image[:, 0, 2] = 0.0, 255.0, 100.0
    image[:2, 0, 3] = 200.0
    return image


def _through_hsv(image: Tensor, saturation: float, hue: float) -> Tensor:
    """Every pixel through colorsys: saturation multiplied and cut at 1, hue added."""
    pixels = []
    for color in (image.double() / 255).flatten(1).T.tolist():
        h, s, v = colorsys.rgb_to_hsv(*color)
        pixels.append(colorsys.hsv_to_rgb((h + hue) % 1, min(s * saturation, 1.0), v))
    return torch.tensor(pixels).T.reshape(image.shape) * 255


@pytest.mark.parametrize("turns", [-0.2, -0.05, 0.0, 0.13, 0.5])
def test_hue_is_that_of_hsv(turns: float) -> None:
    image = _image()
    expected = _through_hsv(image, 1.0, turns)
    torch.testing.assert_close(rotate_hue(image, turns), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.8, 1.0, 1.2, 5.0])
def test_saturation_is_that_of_hsv(factor: float) -> None:
    image = _image()
    expected = _through_hsv(image, factor, 0.0)
    torch.testing.assert_close(scale_saturation(image, factor), expected, atol=1e-3, rtol=0)


def test_brightness_is_added_and_contrast_multiplied_both_clamped() -> None:
    image = torch.tensor([0.0, 100.0, 250.0]).view(3, 1, 1)
    brighter = color_jitter(image, ColorJitter(brightness=0.1, order=("brightness",)))
    torch.testing.assert_close(brighter.flatten(), torch.tensor([25.5, 125.5, 255.0]))
    sharper = color_jitter(image, ColorJitter(contrast=1.2, order=("contrast",)))
    torch.testing.assert_close(sharper.flatten(), torch.tensor([0.0, 120.0, 255.0]))


def test_the_order_of_the_changes_matters() -> None:
    image = torch.full((3, 1, 1), 100.0)
    for order, expected in (
        (("brightness", "contrast"), (100 + 51) * 1.2),
        (("contrast", "brightness"), 100 * 1.2 + 51),
    ):
        jitter = ColorJitter(brightness=0.2, contrast=1.2, order=order)
        torch.testing.assert_close(color_jitter(image, jitter), torch.full((3, 1, 1), expected))


def test_the_neutral_jitter_changes_nothing() -> None:
    torch.testing.assert_close(color_jitter(_image(), ColorJitter()), _image(), atol=1e-3, rtol=0)


def _current_by_loops(image: Tensor, jitter: ColorJitter) -> Tensor:
    """Pixel by pixel in plain floats, from the definitions of Pillow's ImageEnhance and HSV."""
    pixels = [tuple(color) for color in image.double().flatten(1).T.tolist()]

    def grey(color: tuple[float, ...]) -> float:
        return (299 * color[0] + 587 * color[1] + 114 * color[2]) / 1000

    def mixed(color: tuple[float, ...], other: float, factor: float) -> tuple[float, ...]:
        return tuple(min(max(other + factor * (c - other), 0.0), 255.0) for c in color)

    for change in jitter.order:
        if change == "brightness":
            pixels = [mixed(color, 0.0, 1 + jitter.brightness) for color in pixels]
        elif change == "contrast":
            mean = sum(map(grey, pixels)) / len(pixels)
            pixels = [mixed(color, mean, jitter.contrast) for color in pixels]
        elif change == "saturation":
            pixels = [mixed(color, grey(color), jitter.saturation) for color in pixels]
        else:
            hsv = [colorsys.rgb_to_hsv(*(c / 255 for c in color)) for color in pixels]
            turned = [colorsys.hsv_to_rgb((h + jitter.hue) % 1, s, v) for h, s, v in hsv]
            pixels = [tuple(255 * c for c in color) for color in turned]
    return torch.tensor(pixels).T.reshape(image.shape)


@pytest.mark.parametrize(
    "jitter",
    [
        ColorJitter(0.2, 1.2, 0.8, 0.2),
        ColorJitter(-0.15, 0.8, 1.2, -0.1, ("hue", "saturation", "contrast", "brightness")),
        ColorJitter(0.1, 0.9, 0.0, 0.05, ("contrast", "hue", "brightness", "saturation")),
        ColorJitter(-1.5, -0.5, -1.0, 0.0),
    ],
)
def test_the_current_kind_is_that_of_its_definition(jitter: ColorJitter) -> None:
    clipped = ColorJitter(
        max(jitter.brightness, -1.0),
        max(jitter.contrast, 0.0),
        max(jitter.saturation, 0.0),
        jitter.hue,
        jitter.order,
    )
    changed = current_color_jitter(_image(), jitter)
    # float32 against float64, through four changes
    torch.testing.assert_close(
        changed.double(), _current_by_loops(_image(), clipped).double(), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("factor", [0.0, 0.8, 1.0, 1.2, 2.0])
def test_the_current_kind_is_that_of_pillow(factor: float) -> None:
    image = _image().round()
    pil_image = Image.fromarray(image.byte().permute(1, 2, 0).numpy())
    for name, jitter, enhancer in (
        ("brightness", ColorJitter(brightness=factor - 1), ImageEnhance.Brightness),
        ("contrast", ColorJitter(contrast=factor), ImageEnhance.Contrast),
        ("saturation", ColorJitter(saturation=factor), ImageEnhance.Color),
    ):
        expected = torch.from_numpy(np.array(enhancer(pil_image).enhance(factor))).permute(2, 0, 1)
        only = ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, order=(name,))
        # Pillow rounds the grey and cuts off the fraction of the blend
        torch.testing.assert_close(
            current_color_jitter(image, only), expected.float(), atol=2.0, rtol=0
        )


def test_the_neutral_jitter_changes_nothing_in_the_current_kind() -> None:
    changed = current_color_jitter(_image(), ColorJitter())
    torch.testing.assert_close(changed, _image(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("sigma", [0.15, 0.6, 1.15])
def test_blur_is_a_wide_gaussian_with_mirrored_borders(sigma: float) -> None:
    # 51 x 51 taps, the baseline's kernel at 512 pixels; mirrored as often as it takes.
    image = _image(1)
    reach = 25
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-reach, reach + 1)]
    weights = [weight / sum(weights) for weight in weights]

    def mirrored(position: int, size: int) -> int:
        position = abs(position) % (2 * size - 2)
        return min(position, 2 * size - 2 - position)

    expected = image.double()
    for dim in (1, 2):
        size = image.shape[dim]
        expected = sum(
            weight
            * expected.index_select(dim, torch.tensor([mirrored(i + o, size) for i in range(size)]))
            for o, weight in zip(range(-reach, reach + 1), weights, strict=True)
        )
    # Beyond 11 taps lies a part of 2e-6 at most: a thousandth of a grey level.
    torch.testing.assert_close(gaussian_blur(image, sigma).double(), expected, atol=2e-3, rtol=0)


def test_probabilities_and_ranges_of_the_draws() -> None:
    drawn = [draw_augmentations(2, torch.Generator().manual_seed(seed)) for seed in range(2000)]
    jittered = [first for first, _ in drawn if first.color_jitter is not None]
    blurred = [first.blur_sigma for first, _ in drawn if first.blur_sigma is not None]
    # four standard errors of a share of 2000 draws
    assert abs(len(jittered) / 2000 - 0.8) < 0.036
    assert abs(len(blurred) / 2000 - 0.5) < 0.045
    assert 0.15 <= min(blurred) < 0.16
    assert 1.14 < max(blurred) <= 1.15
    for name, low, high in (
        ("brightness", -0.2, 0.2),
        ("contrast", 0.8, 1.2),
        ("saturation", 0.8, 1.2),
        ("hue", -0.2, 0.2),
    ):
        values = [getattr(one.color_jitter, name) for one in jittered]
        assert low <= min(values) < low + 0.01
        assert high - 0.01 < max(values) <= high
    assert len({one.color_jitter.order for one in jittered if one.color_jitter}) == 24


def test_decided_for_the_batch_and_drawn_for_each_image() -> None:
    for seed in range(50):
        first, second = draw_augmentations(2, torch.Generator().manual_seed(seed))
        assert (first.color_jitter is None) == (second.color_jitter is None)
        assert (first.blur_sigma is None) == (second.blur_sigma is None)
        assert first.color_jitter is None or first.color_jitter != second.color_jitter


def test_images_are_augmented_each_by_its_own() -> None:
    images = torch.stack([_image(0), _image(1)])
    jitter = ColorJitter(brightness=0.1)
    changed = augment(images, [Augmentation(None, None), Augmentation(jitter, 0.8)])
    assert torch.equal(changed[0], images[0])
    assert torch.equal(changed[1], gaussian_blur(color_jitter(images[1], jitter), 0.8))


def test_the_same_generator_state_gives_the_same_images_within_range() -> None:
    images = torch.stack([_image(0), _image(1)])
    for seed in range(10):
        first, second = (
            augment(images, draw_augmentations(2, torch.Generator().manual_seed(seed)))
            for _ in range(2)
        )
        assert torch.equal(first, second)
        assert first.min() >= -1e-3
        assert first.max() <= 255 + 1e-3


def test_settings_decide_how_often_and_how_strongly() -> None:
    settings = AugmentationSettings(
        jitter_probability=1.0, jitter_strength=0.05, blur_probability=0.0
    )
    for seed in range(20):
        drawn = draw_augmentations(3, torch.Generator().manual_seed(seed), settings)
        usual = draw_augmentations(3, torch.Generator().manual_seed(seed))
        for one, other in zip(drawn, usual, strict=True):
            assert one.blur_sigma is None
            assert one.color_jitter is not None
            if other.color_jitter is not None:  # the same numbers, a quarter as strong
                assert one.color_jitter.hue == pytest.approx(other.color_jitter.hue / 4)
                assert one.color_jitter.order == other.color_jitter.order


def test_the_kind_of_jitter_is_the_one_asked_for() -> None:
    image = _image()[None]
    jitter = ColorJitter(brightness=0.1, contrast=0.9, saturation=1.2, hue=0.05)
    for kind, function in (("legacy", color_jitter), ("current", current_color_jitter)):
        augmentation = Augmentation(jitter, blur_sigma=None, jitter_kind=kind)
        assert torch.equal(augment(image, [augmentation])[0], function(image[0], jitter))


def test_an_unknown_kind_of_jitter_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'pillow'; known: legacy, current"):
        AugmentationSettings(jitter_kind="pillow")


def _distorted_slowly(image: Tensor, jitter: ColorJitter) -> Tensor:
    """PhotoMetricDistortion pixel by pixel, in [0, 255] and the standard library's HSV."""
    pixels = []
    for color in image.double().flatten(1).T.tolist():
        for change in jitter.order:
            if change == "brightness":
                color = [min(max(c + 255 * jitter.brightness, 0), 255) for c in color]
            elif change == "contrast":
                color = [min(max(c * jitter.contrast, 0), 255) for c in color]
            else:
                h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in color))
                if change == "saturation":
                    s = min(s * jitter.saturation, 1)
                else:
                    h = (h + jitter.hue) % 1
                color = [255 * c for c in colorsys.hsv_to_rgb(h, s, v)]
        pixels.append(color)
    return torch.tensor(pixels).T.reshape(image.shape)


def test_photometric_distortion_is_that_of_every_pixel() -> None:
    images = torch.stack([_image(seed).round() for seed in range(12)]).byte()
    drawn = draw_photometric(12, torch.Generator().manual_seed(0))
    assert {len(jitter.order) for jitter in drawn} >= {1, 2, 3, 4}
    found = photometric_distortion(images, drawn)
    assert found.dtype == torch.float32
    for image, jitter, one in zip(images, drawn, found, strict=True):
        expected = _distorted_slowly(image, jitter)
        torch.testing.assert_close(one, expected.float(), atol=2e-3, rtol=0)


def test_photometric_distortion_cuts_what_a_translator_left_outside_of_the_range() -> None:
    image = torch.tensor([-20.0, 100.0, 300.0]).view(1, 3, 1, 1)
    found = photometric_distortion(image, [ColorJitter(order=())])
    assert found.flatten().tolist() == [0, 100, 255]


def test_probabilities_ranges_and_orders_of_photometric_distortion() -> None:
    drawn = draw_photometric(4000, torch.Generator().manual_seed(1))
    for name in ColorJitter.order:
        share = sum(name in jitter.order for jitter in drawn) / len(drawn)
        assert share == pytest.approx(0.5, abs=0.03)  # four standard errors
    bounds = {
        "brightness": (-32 / 255, 32 / 255),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-0.1, 0.1),
    }
    for name, (low, high) in bounds.items():
        values = [getattr(jitter, name) for jitter in drawn]
        assert low <= min(values) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values) <= high
    both = [jitter.order for jitter in drawn if {"contrast", "hue"} <= set(jitter.order)]
    last = sum(order[-1] == "contrast" for order in both) / len(both)
    assert last == pytest.approx(0.5, abs=0.07)
    orders = {order for order in both if len(order) == 4}
    assert orders == {
        ("brightness", "contrast", "saturation", "hue"),
        ("brightness", "saturation", "hue", "contrast"),
    }


def test_probability_ranges_and_orders_of_the_sources_jitter() -> None:
    drawn = draw_source_jitter(4000, torch.Generator().manual_seed(1), probability=0.9)
    jitters = [one.color_jitter for one in drawn if one.color_jitter is not None]
    assert len(jitters) / len(drawn) == pytest.approx(0.9, abs=0.02)  # four standard errors
    assert {one.jitter_kind for one in drawn} == {"current"}
    assert {one.blur_sigma for one in drawn} == {None}
    bounds = {
        "brightness": (-32 / 255, 32 / 255),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-0.05, 0.05),
    }
    for name, (low, high) in bounds.items():
        values = [getattr(jitter, name) for jitter in jitters]
        assert low <= min(values) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values) <= high
    assert len({jitter.order for jitter in jitters}) == 24


def test_the_sources_jitter_consumes_as_much_at_any_probability() -> None:
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    assert all(one.color_jitter is None for one in draw_source_jitter(5, first, 0.0))
    assert all(one.color_jitter is not None for one in draw_source_jitter(5, second, 1.0))
    assert torch.equal(first.get_state(), second.get_state())
