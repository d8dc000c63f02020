"""FDA against full transforms in float64."""

import numpy as np
import pytest

from t2sda.data.translation.fda import fourier_adapt, fourier_perturb
from tests.references import fourier as reference


def _images(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(height * width)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    style = generator.integers(0, 100, (height, width, 3), dtype=np.uint8)
    return image, style


@pytest.mark.parametrize("window", [0.0, 0.01, 0.1, 0.3, 0.499])
@pytest.mark.parametrize("size", [(64, 128), (33, 20), (20, 33), (1, 7)])
def test_fda_is_the_full_transform(size: tuple[int, int], window: float) -> None:
    image, style = _images(*size)
    adapted = fourier_adapt(image, style, window)
    # float32 sums over an image in [0, 255]: a thousandth of a grey level
    np.testing.assert_allclose(adapted, reference.fourier_adapt(image, style, window), atol=1e-3)
    assert adapted.dtype == np.float32


def test_fda_at_the_size_of_training() -> None:
    image, style = _images(512, 1024)
    expected = reference.fourier_adapt(image, style, 0.01)  # b = 5
    np.testing.assert_allclose(fourier_adapt(image, style, 0.01), expected, atol=1e-3)


@pytest.mark.parametrize("window", [0.0, 0.1, 0.4])
def test_an_image_in_its_own_style_is_itself(window: float) -> None:
    image, _ = _images(24, 31)
    assert np.array_equal(fourier_adapt(image, image, window), image)


def test_window_zero_exchanges_the_channel_means_alone() -> None:
    image, style = _images(24, 31)
    adapted = fourier_adapt(image, style, 0.0)
    shift = style.mean(axis=(0, 1)) - image.mean(axis=(0, 1))
    np.testing.assert_allclose(adapted, image + shift, atol=1e-3)


def test_float_images_and_the_input_stay_as_they_are() -> None:
    image, style = (one.astype(np.float32) for one in _images(16, 16))
    before = image.copy()
    adapted = fourier_adapt(image, style, 0.1)
    assert np.array_equal(image, before)
    assert np.array_equal(adapted, fourier_adapt(image.astype(np.uint8), style, 0.1))


def test_a_channel_of_zeros_takes_the_styles_mean() -> None:
    image, style = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 40, np.uint8)
    np.testing.assert_allclose(fourier_adapt(image, style, 0.2), style, atol=1e-3)


def test_the_result_is_not_clipped() -> None:
    image, style = _images(32, 32)
    adapted = fourier_adapt(image, style, 0.1)
    assert adapted.min() < 0


def test_unlike_sizes_and_a_window_out_of_range_are_refused() -> None:
    image, style = _images(16, 16)
    with pytest.raises(ValueError, match=r"\(16, 16, 3\).*\(8, 16, 3\).*crop the source"):
        fourier_adapt(image, style[:8], 0.1)
    with pytest.raises(ValueError, match=r"window is 0.5.*\[0, 0.5\)"):
        fourier_adapt(image, style, 0.5)


@pytest.mark.parametrize("size", [(33, 20), (24, 32)])
def test_a_random_style_changes_the_amplitudes_of_the_window_alone(size: tuple[int, int]) -> None:
    image, _ = _images(*size)
    changed = fourier_perturb(image, 0.2, 0.5, np.random.default_rng(0))
    before, after = (
        np.fft.fftshift(np.fft.fft2(one.astype(np.float64), axes=(0, 1)), axes=(0, 1))
        for one in (image, changed)
    )
    reach, rows, columns = int(min(size) * 0.2), size[0] // 2, size[1] // 2
    inside = np.zeros(size, dtype=bool)
    inside[rows - reach : rows + reach + 1, columns - reach : columns + reach + 1] = True
    # float32 sums over an image in [0, 255]
    np.testing.assert_allclose(after[~inside], before[~inside], atol=0.5)
    ratio = after[inside] / before[inside]
    np.testing.assert_allclose(ratio.imag, 0, atol=1e-2)  # the phase stays
    assert (ratio.real > 0).all()
    assert np.log(ratio.real).std() == pytest.approx(0.5, rel=0.25)


def test_a_random_style_of_strength_zero_is_the_image() -> None:
    image, _ = _images(24, 31)
    generator = np.random.default_rng(0)
    np.testing.assert_allclose(fourier_perturb(image, 0.2, 0.0, generator), image, atol=1e-3)


def test_random_styles_follow_from_the_generator() -> None:
    image, _ = _images(24, 31)
    first, second, third = (
        fourier_perturb(image, 0.1, 0.3, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert np.abs(first - third).max() > 1
