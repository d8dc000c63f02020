"""FDA against full transforms in float64."""

import numpy as np
import pytest

from t2sda.data.translation.fda import fourier_adapt
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
