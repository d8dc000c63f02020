"""What every registered translator promises."""

from __future__ import annotations

import numpy as np
import pytest

from t2sda.config import load_config
from t2sda.data.translation.base import Translator, build_translator
from t2sda.data.translation.files import FilesTranslator
from t2sda.registry import TRANSLATORS

RESTYLING = [name for name in TRANSLATORS.names() if not TRANSLATORS.is_a(name, FilesTranslator)]
"""All but the one that takes the result from a file: tests/data/translation/test_files.py."""


@pytest.fixture(params=RESTYLING)
def translator(request: pytest.FixtureRequest) -> Translator:
    cfg = load_config(
        "quickstart.yaml",
        ["META_ARCH.NAME", "T2SDA", "TRANSLATION.NAME", request.param],
    )
    built = build_translator(cfg)
    assert built is not None
    return built


def _images(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    image, style = generator.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return image, style


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_images_keep_their_size_and_become_float32(
    translator: Translator, size: tuple[int, int]
) -> None:
    image, style = _images(*size)
    before = image.copy()
    for seed in range(8):
        result = translator(
            image, style if translator.needs_target else None, np.random.default_rng(seed)
        )
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        assert result.flags["C_CONTIGUOUS"]
    assert np.array_equal(image, before)


def test_the_generator_alone_decides(translator: Translator) -> None:
    image, style = _images(32, 48)
    given = style if translator.needs_target else None
    first, second = (translator(image, given, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)


def test_images_are_changed(translator: Translator) -> None:
    image, style = _images(32, 48)
    given = style if translator.needs_target else None
    results = [translator(image, given, np.random.default_rng(seed)) for seed in range(8)]
    assert any(not np.array_equal(result, image) for result in results)
