"""Fourier domain adaptation (FDA): the source's phase with another low-frequency amplitude.

The amplitude is the target's, or, where no target image may be seen, the source's own after a
random change.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import numpy as np
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.registry import TRANSLATORS

SCHEMA.declare(
    "TRANSLATION",
    {
        "FDA_WINDOW": Field(
            0.01,
            "L: the amplitudes of (2b+1) x (2b+1) lowest frequencies are exchanged, "
            "b = floor(min(height, width) L)",
            low=0.0,
            high=0.49,
        )
    },
    when=lambda cfg: TRANSLATORS.is_a(
        cfg.TRANSLATION.NAME, FdaTranslator, RandomStyleFdaTranslator
    ),
    when_text="TRANSLATION.NAME is FDA or RandomStyleFDA",
)
SCHEMA.declare(
    "TRANSLATION",
    {
        "STYLE_STRENGTH": Field(
            0.3,
            "standard deviation of the logarithm that low-frequency amplitudes are changed by",
            low=0.0,
            high=2.0,
            exclusive_low=True,
        )
    },
    when=lambda cfg: TRANSLATORS.is_a(cfg.TRANSLATION.NAME, RandomStyleFdaTranslator),
    when_text="TRANSLATION.NAME is RandomStyleFDA",
)


@TRANSLATORS.register("FDA")
class FdaTranslator:
    """Fourier domain adaptation: the source image with the target's colors and light.

    Args:
        window: L.
    """

    needs_target: ClassVar[bool] = True

    def __init__(self, window: float) -> None:
        self.window = window

    @classmethod
    def from_config(cls, cfg: CfgNode) -> FdaTranslator:
        """Read TRANSLATION.FDA_WINDOW."""
        return cls(cfg.TRANSLATION.FDA_WINDOW)

    def __call__(
        self, image: np.ndarray, style: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 source and target of one size -> (H, W, 3) float32, unclipped."""
        assert style is not None, "FDA needs a target image"
        return fourier_adapt(image, style, self.window)


@TRANSLATORS.register("RandomStyleFDA")
class RandomStyleFdaTranslator:
    """FDA without a target: light and colors of the source, changed at random.

    Args:
        window: L.
        strength: see `fourier_perturb`.
    """

    needs_target: ClassVar[bool] = False

    def __init__(self, window: float, strength: float) -> None:
        self.window = window
        self.strength = strength

    @classmethod
    def from_config(cls, cfg: CfgNode) -> RandomStyleFdaTranslator:
        """Read TRANSLATION.FDA_WINDOW and TRANSLATION.STYLE_STRENGTH."""
        return cls(cfg.TRANSLATION.FDA_WINDOW, cfg.TRANSLATION.STYLE_STRENGTH)

    def __call__(
        self, image: np.ndarray, style: np.ndarray | None, generator: np.random.Generator
    ) -> np.ndarray:
        """(H, W, 3) uint8 source -> (H, W, 3) float32, unclipped."""
        return fourier_perturb(image, self.window, self.strength, generator)


def fourier_adapt(image: np.ndarray, style: np.ndarray, window: float) -> np.ndarray:
    """T(x^s): replace the amplitudes of the lowest frequencies of `image` by those of `style`.

    The frequencies are the symmetric (2b+1) x (2b+1) window around 0, b = floor(min(H, W)·window),
    so that the result is real (docs/fidelity.md, A10). It is not clipped: values may leave
    [0, 255].

    Only that window changes, so only that window is transformed: image + inverse transform of
    (new - old), by matrix products with 2b+1 rows, instead of three full transforms.

    Args:
        image: (H, W, 3) source, uint8 or float, in [0, 255].
        style: (H, W, 3) target of the same size.
        window: L in [0, 0.5); 0 exchanges the channel means alone.

    Returns:
        (H, W, 3) float32.

    Raises:
        ValueError: if the sizes differ or `window` is out of range.
    """
    if image.shape != style.shape:
        raise ValueError(
            f"FDA needs images of one size, but the source is {image.shape} and the target "
            f"{style.shape}; crop the source to the target's size first"
        )
    rows, columns = _window_waves(image, window)
    return _with_amplitudes(image, np.abs(_spectrum(style, rows, columns)), rows, columns)


def fourier_perturb(
    image: np.ndarray, window: float, strength: float, generator: np.random.Generator
) -> np.ndarray:
    """T(x^s) without a target: multiply the amplitudes of the lowest frequencies by exp(s·z).

    z is normal, drawn for every frequency and channel, alike for a frequency and its opposite so
    that the result is real. The window is that of `fourier_adapt`; it is not clipped either.

    Args:
        image: (H, W, 3) uint8 or float, in [0, 255].
        window: L in [0, 0.5); 0 scales the channel means alone.
        strength: s >= 0; 0 changes nothing.
        generator: consumed by the numbers of the window's frequencies.

    Returns:
        (H, W, 3) float32.

    Raises:
        ValueError: if `window` is out of range.
    """
    rows, columns = _window_waves(image, window)
    amplitude = np.abs(_spectrum(image, rows, columns))
    normal = generator.standard_normal((len(rows) * len(columns), 3))
    half = len(normal) // 2
    normal[half + 1 :] = normal[:half][::-1]
    change = np.exp(strength * normal).reshape(amplitude.shape)
    return _with_amplitudes(image, amplitude * change, rows, columns)


def _window_waves(image: np.ndarray, window: float) -> tuple[np.ndarray, np.ndarray]:
    """The waves of the 2b+1 lowest frequencies along height and width."""
    if not 0 <= window < 0.5:
        raise ValueError(f"FDA window is {window}; it must lie in [0, 0.5)")
    height, width = image.shape[:2]
    reach = math.floor(min(height, width) * window)
    return _waves(height, reach), _waves(width, reach)


def _with_amplitudes(
    image: np.ndarray, amplitude: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """`image` with `amplitude` (2b+1, 2b+1, 3) at the frequencies of `rows` and `columns`."""
    height, width, channels = image.shape
    image = image.astype(np.float32)
    change = _amplitude_change(_spectrum(image, rows, columns), amplitude)
    partial = np.tensordot(change, columns.conj(), axes=(1, 0)) / (height * width)
    partial = partial.swapaxes(1, 2)  # (2b+1, W, 3)
    partial = np.concatenate([partial.real, partial.imag]).astype(np.float32)
    image += (_real(rows).T @ partial.reshape(len(partial), -1)).reshape(height, width, channels)
    return image


def _spectrum(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(2b+1, 2b+1, 3) complex128 transform of (H, W, 3) at the frequencies -b … b."""
    height, width, channels = image.shape
    flat = image.reshape(height, -1).astype(np.float32, copy=False)
    partial = (_real(rows) @ flat).reshape(2, len(rows), width, channels).astype(np.float64)
    return np.tensordot(partial[0] + 1j * partial[1], columns, axes=(1, 1)).swapaxes(1, 2)


def _amplitude_change(spectrum: np.ndarray, new_amplitude: np.ndarray) -> np.ndarray:
    """New minus old: `new_amplitude` with the phase of `spectrum`."""
    amplitude = np.abs(spectrum)
    phase = np.divide(spectrum, amplitude, out=np.ones_like(spectrum), where=amplitude > 0)
    return (new_amplitude - amplitude) * phase


def _real(waves: np.ndarray) -> np.ndarray:
    """(4b+2, size) float32: the real parts, then the imaginary ones; images are real."""
    return np.concatenate([waves.real, waves.imag]).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _waves(size: int, reach: int) -> np.ndarray:
    """(2b+1, size) complex128 exp(-2πi·k·x / size) for k = -b … b."""
    frequency = np.arange(-reach, reach + 1)[:, None]
    return np.exp(-2j * np.pi * (frequency * np.arange(size) % size) / size)
