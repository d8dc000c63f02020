"""Strong augmentation of mixed images: color jitter and Gaussian blur, docs/fidelity.md, A2.

There are two kinds of color jitter. `color_jitter` has the semantics of the baseline's library
(kornia 0.5): brightness is added, contrast scales about black, saturation is that of HSV.
`current_color_jitter` has those of torchvision, Pillow and newer kornia: brightness is multiplied,
contrast blends with the mean grey, saturation blends with the grey of each pixel. In both, a hue
shift of 0.2 is a fifth of the color circle. One draw serves either kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

JITTER_KINDS = ("legacy", "current")
BRIGHTNESS_DELTA = 32 / 255
HUE_DELTA = 18 / 180
"""Of photometric distortion; OpenCV, in which it was written, has 180 hues."""
BLUR_SIGMA = (0.15, 1.15)
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Grey of red, green and blue, ITU-R BT.601, as in Pillow, torchvision and kornia."""
BLUR_TAPS = 11
"""At sigma <= 1.15, as good as the baseline's kernel of a tenth of the image (51 taps at 512)."""


@dataclass(frozen=True)
class ColorJitter:
    """One draw; the four changes are applied in `order`, each clamped to [0, 255]."""

    brightness: float = 0.0
    """Added, in units of 255; in the current kind, the factor on the colors less 1."""
    contrast: float = 1.0
    """Factor on the distance from black; in the current kind, from the mean grey of the image."""
    saturation: float = 1.0
    """Factor on the saturation of HSV; in the current kind, on the distance from grey."""
    hue: float = 0.0
    """Added to the hue of HSV, in turns of the color circle."""
    order: tuple[str, ...] = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Augmentation:
    """What is done to one image; None: not done."""

    color_jitter: ColorJitter | None
    blur_sigma: float | None
    jitter_kind: str = "legacy"


@dataclass(frozen=True)
class AugmentationSettings:
    """How often and how strongly; the defaults are the baseline's."""

    jitter_kind: str = "legacy"
    """One of JITTER_KINDS."""
    jitter_probability: float = 0.8
    jitter_strength: float = 0.2
    """Amounts are drawn from [-strength, strength]."""
    blur_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.jitter_kind not in JITTER_KINDS:
            raise ValueError(
                f"the jitter's kind is '{self.jitter_kind}'; known: {', '.join(JITTER_KINDS)}"
            )


def draw_augmentations(
    num_images: int,
    generator: torch.Generator,
    settings: AugmentationSettings = AugmentationSettings(),
) -> list[Augmentation]:
    """Jitter the colors (80 %) and blur (50 %): decided once a batch, amounts drawn per image.

    Ranks draw for all images of the mini-batch and take their own. Always consumes the same amount
    of random numbers.

    Args:
        num_images: of the mini-batch.
        generator: on the CPU: its few numbers steer the program, so no device has to be waited for.
        settings: kind, probabilities and strength.
    """
    if generator.device.type != "cpu":
        raise ValueError(
            f"augmentations are drawn on the CPU, but the generator lives on {generator.device}; "
            f"give a CPU generator"
        )
    jitter, blur = torch.rand(2, generator=generator).tolist()
    return [
        Augmentation(
            color_jitter=drawn_jitter if jitter < settings.jitter_probability else None,
            blur_sigma=drawn_sigma if blur < settings.blur_probability else None,
            jitter_kind=settings.jitter_kind,
        )
        for drawn_jitter, drawn_sigma in [
            _draw_amounts(generator, settings.jitter_strength) for _ in range(num_images)
        ]
    ]


def augment(image: Tensor, augmentations: Sequence[Augmentation]) -> Tensor:
    """Apply one augmentation to each image of (B, 3, H, W) float RGB in [0, 255]."""
    changed = [
        _augment_one(one, augmentation)
        for one, augmentation in zip(image, augmentations, strict=True)
    ]
    return torch.stack(changed)


def draw_photometric(num_images: int, generator: torch.Generator) -> list[ColorJitter]:
    """PhotoMetricDistortion of mmsegmentation, drawn for every image (docs/fidelity.md, E6).

    Brightness, contrast, saturation and hue, each with probability 0.5; contrast comes second or
    last, with equal probability. Always consumes the same amount of random numbers.
    """
    return [_draw_one_photometric(generator) for _ in range(num_images)]


def draw_source_jitter(
    num_images: int, generator: torch.Generator, probability: float
) -> list[Augmentation]:
    """Color jitter of the source with torchvision's meaning, as VFM-UDA has it, for every image.

    Brightness by ±32/255, contrast and saturation by half, hue by ±18 of 360 degrees, in random
    order. Always consumes the same amount of random numbers.

    Args:
        num_images: of the mini-batch.
        generator: on the CPU.
        probability: of jitter in an image.
    """
    drawn = []
    for _ in range(num_images):
        decision, *amounts = torch.rand(5, generator=generator).tolist()
        order = torch.randperm(4, generator=generator).tolist()
        brightness, contrast, saturation, hue = (2 * amount - 1 for amount in amounts)  # [-1, 1)
        jitter = ColorJitter(
            brightness=BRIGHTNESS_DELTA * brightness,
            contrast=1 + 0.5 * contrast,
            saturation=1 + 0.5 * saturation,
            hue=HUE_DELTA / 2 * hue,
            order=tuple(ColorJitter.order[i] for i in order),
        )
        drawn.append(Augmentation(jitter if decision < probability else None, None, "current"))
    return drawn


def photometric_distortion(image: Tensor, drawn: Sequence[ColorJitter]) -> Tensor:
    """Apply one draw to each image of (B, 3, H, W) in [0, 255], uint8 or float; nothing is rounded.

    Returns:
        (B, 3, H, W) float within [0, 255].
    """
    image = image.clamp(0, 255).to(torch.promote_types(image.dtype, torch.float32))
    return torch.stack(
        [color_jitter(one, jitter) for one, jitter in zip(image, drawn, strict=True)]
    )


def color_jitter(image: Tensor, jitter: ColorJitter) -> Tensor:
    """The four changes of `jitter` in its order, on one (3, H, W) image in [0, 255]."""
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "brightness": lambda x: (x + 255 * jitter.brightness).clamp(0, 255),
        "contrast": lambda x: (x * jitter.contrast).clamp(0, 255),
        "saturation": lambda x: scale_saturation(x, jitter.saturation),
        "hue": lambda x: rotate_hue(x, jitter.hue),
    }
    for name in jitter.order:
        image = changes[name](image)
    return image


def current_color_jitter(image: Tensor, jitter: ColorJitter) -> Tensor:
    """The four changes of `jitter` in its order, as torchvision, Pillow and newer kornia mean them.

    Brightness, contrast and saturation are blends: factor * image + (1 - factor) * other, with
    black, the mean grey of the image and the grey of each pixel as the other; factors below 0 count
    as 0. Nothing is rounded.

    Args:
        image: one (3, H, W) float RGB image in [0, 255].
        jitter: the brightness factor is 1 + `jitter.brightness`.
    Returns:
        (3, H, W), within [0, 255].
    """
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "brightness": lambda x: _blend(x, torch.zeros_like(x), 1 + jitter.brightness),
        "contrast": lambda x: _blend(x, _grey(x).mean(), jitter.contrast),
        "saturation": lambda x: _blend(x, _grey(x), jitter.saturation),
        "hue": lambda x: rotate_hue(x, jitter.hue),
    }
    for name in jitter.order:
        image = changes[name](image)
    return image


def scale_saturation(image: Tensor, factor: float) -> Tensor:
    """Multiply the HSV saturation of one (3, H, W) image; it cannot exceed 1.

    With value v and hue fixed, v - channel is proportional to the saturation s = chroma / v.
    """
    value, chroma = _value_and_chroma(image)
    largest_factor = value / chroma.clamp(min=torch.finfo(image.dtype).tiny)  # makes s = 1
    return value - (value - image) * largest_factor.clamp(max=factor)


def rotate_hue(image: Tensor, turns: float) -> Tensor:
    """Shift the HSV hue of one (3, H, W) image by `turns` of the color circle.

    From hue h (in sixths) back to RGB: channel = v - chroma * clamp(min(t, 4 - t), 0, 1) with
    t = (n + h) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    value, chroma = _value_and_chroma(image)
    red, green, blue = image
    gray = chroma == 0
    safe_chroma = chroma.masked_fill(gray, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / safe_chroma,
        torch.where(
            value == green, 2 + (blue - red) / safe_chroma, 4 + (red - green) / safe_chroma
        ),
    )
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=image.dtype, device=image.device)
    sector = (offsets[:, None, None] + hue + 6 * turns) % 6  # (3, H, W)
    return value - chroma * torch.minimum(sector, 4 - sector).clamp(0, 1)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur with 11 taps and mirrored borders, on one (3, H, W) image."""
    reach = BLUR_TAPS // 2
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(reach + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    padded = F.pad(image, (reach, reach, reach, reach), mode="reflect")
    for dim in (1, 2):
        padded = _blur_along(dim, padded, [weight / total for weight in weights])
    return padded


def _blur_along(dim: int, padded: Tensor, taps: list[float]) -> Tensor:
    """Symmetric taps (middle one first) along `dim`, which shrinks by as many on either side.

    Sums of shifted images: on a CPU several times faster than conv2d with a single channel.
    """
    reach = len(taps) - 1
    size = padded.shape[dim] - 2 * reach
    blurred = padded.narrow(dim, reach, size) * taps[0]
    for offset, tap in enumerate(taps[1:], start=1):
        before = padded.narrow(dim, reach - offset, size)
        after = padded.narrow(dim, reach + offset, size)
        blurred.add_(before + after, alpha=tap)
    return blurred


def _augment_one(image: Tensor, augmentation: Augmentation) -> Tensor:
    if augmentation.color_jitter is not None:
        jitter = color_jitter if augmentation.jitter_kind == "legacy" else current_color_jitter
        image = jitter(image, augmentation.color_jitter)
    if augmentation.blur_sigma is not None:
        image = gaussian_blur(image, augmentation.blur_sigma)
    return image


def _draw_amounts(generator: torch.Generator, strength: float) -> tuple[ColorJitter, float]:
    amounts = torch.rand(5, generator=generator).tolist()
    brightness, contrast, saturation, hue = (strength * (2 * amount - 1) for amount in amounts[:4])
    order = [ColorJitter.order[i] for i in torch.randperm(4, generator=generator).tolist()]
    jitter = ColorJitter(brightness, 1 + contrast, 1 + saturation, hue, tuple(order))
    low, high = BLUR_SIGMA
    return jitter, low + (high - low) * amounts[4]


def _draw_one_photometric(generator: torch.Generator) -> ColorJitter:
    decisions, amounts = torch.rand(2, 5, generator=generator).tolist()
    contrast_last = decisions[4] < 0.5
    names = ("brightness", "saturation", "hue", "contrast") if contrast_last else ColorJitter.order
    wanted = {
        name for name, draw in zip(ColorJitter.order, decisions[:4], strict=True) if draw < 0.5
    }
    brightness, contrast, saturation, hue = (2 * amount - 1 for amount in amounts[:4])  # [-1, 1)
    return ColorJitter(
        brightness=BRIGHTNESS_DELTA * brightness,
        contrast=1 + 0.5 * contrast,
        saturation=1 + 0.5 * saturation,
        hue=HUE_DELTA * hue,
        order=tuple(name for name in names if name in wanted),
    )


def _blend(image: Tensor, other: Tensor, factor: float) -> Tensor:
    """Blend of `image` with `other`: factor * image + (1 - factor) * other, within [0, 255]."""
    return torch.lerp(other.expand_as(image), image, max(factor, 0.0)).clamp(0, 255)


def _grey(image: Tensor) -> Tensor:
    """Luma of one (3, H, W) image, (H, W)."""
    red, green, blue = LUMA_WEIGHTS
    return red * image[0] + green * image[1] + blue * image[2]


def _value_and_chroma(image: Tensor) -> tuple[Tensor, Tensor]:
    """V of HSV and V - min, both (H, W)."""
    value = image.amax(dim=0)
    return value, value - image.amin(dim=0)
