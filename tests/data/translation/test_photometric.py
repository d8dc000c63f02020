"""Translators without a target: what they change, how often, and what they leave alone."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from t2sda.data.translation import photometric
from t2sda.data.translation.photometric import (
    ColorJitterTranslator,
    GaussianBlurTranslator,
    PhotometricMixTranslator,
    blurred,
    jittered,
    with_channel_gammas,
    with_noise,
)


def _image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Drawn:
    """A generator that gives prepared numbers: what is drawn becomes what a test says."""

    def __init__(self, *, uniform: object, order: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        self._uniform, self._order = uniform, order

    def uniform(self, *_: object) -> object:
        return self._uniform

    def permutation(self, _: int) -> tuple[int, ...]:
        return self._order


def test_the_jitter_is_pillows_with_simclrs_strengths() -> None:
    image = _image()
    drawn = Drawn(uniform=np.array([0.5, -0.25, 0.75, 0.0]))  # times 0.8: factors 1.4, 0.8, 1.6
    result = jittered(image.astype(np.float32), drawn)  # type: ignore[arg-type]
    expected = Image.fromarray(image)
    for enhancer, factor in (
        (ImageEnhance.Brightness, 1.4),
        (ImageEnhance.Contrast, 0.8),
        (ImageEnhance.Color, 1.6),
    ):
        expected = enhancer(expected).enhance(factor)
    # Pillow rounds after every step: one grey level each, times the factors that follow.
    assert np.abs(result - np.asarray(expected, dtype=np.float32)).max() < 4


def test_the_blur_is_a_gaussian_of_the_drawn_width() -> None:
    impulse = np.zeros((61, 61, 3), np.float32)
    impulse[30, 30] = 1.0
    result = blurred(impulse, Drawn(uniform=0.7))[..., 0]  # type: ignore[arg-type]
    offsets = np.arange(-3, 4)  # reach: 61 // 20
    taps = np.exp(-(offsets**2) / (2 * 0.7**2))
    taps /= taps.sum()
    np.testing.assert_allclose(result[27:34, 27:34], np.outer(taps, taps), atol=1e-6)
    assert result.sum() == pytest.approx(1.0, abs=1e-5)


def test_gammas_keep_black_and_white_and_bend_what_is_between() -> None:
    image = np.array([0, 127.5, 255], np.float32)[None, :, None].repeat(3, axis=2)
    result = with_channel_gammas(image, Drawn(uniform=np.array([-1.0, 0.0, 1.0])))  # type: ignore[arg-type]
    np.testing.assert_allclose(result[0, (0, 2)], image[0, (0, 2)])
    np.testing.assert_allclose(result[0, 1], 255 * 0.5 ** np.array([1 / 1.5, 1, 1.5]), rtol=1e-5)


def test_noise_has_the_drawn_strength_and_mean_zero() -> None:
    generator = np.random.default_rng(1)
    gray = np.full((200, 200, 3), 128, np.float32)
    deviations = [(with_noise(gray, generator) - 128) for _ in range(20)]
    assert max(np.abs(item.mean()) for item in deviations) < 0.2
    strengths = [item.std() for item in deviations]
    assert max(strengths) < photometric.NOISE_SIGMA
    assert max(strengths) > 2 * min(strengths)


@pytest.mark.parametrize(
    ("translator", "share"),
    [
        (ColorJitterTranslator(), 0.8),
        (GaussianBlurTranslator(), 0.5),
        (PhotometricMixTranslator(), 1 - 0.5**4),
    ],
)
def test_translators_change_the_share_of_images_they_say(
    translator: Callable[..., np.ndarray], share: float
) -> None:
    image = _image(24, 24)
    changed = 0
    for seed in range(200):
        result = translator(image, None, np.random.default_rng(seed))
        assert result.dtype == np.float32
        assert result.shape == image.shape
        assert np.isfinite(result).all()
        changed += not np.array_equal(result, image)
    # 200 images: a standard error of at most 3.6 %
    assert changed / 200 == pytest.approx(share, abs=0.11)


def test_the_same_generator_gives_the_same_image_and_the_input_is_kept() -> None:
    image = _image()
    before = image.copy()
    first, second = (
        PhotometricMixTranslator()(image, None, np.random.default_rng(5)) for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert np.array_equal(image, before)
