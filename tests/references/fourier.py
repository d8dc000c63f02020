"""Fourier domain adaptation with full transforms in float64."""

import numpy as np


def fourier_adapt(image, style, window):
    """Exchange the amplitudes of the centred (2b+1) x (2b+1) block of the shifted spectrum."""
    height, width = image.shape[:2]
    reach = int(np.floor(min(height, width) * window))
    middle_row, middle_column = height // 2, width // 2
    block = np.s_[
        middle_row - reach : middle_row + reach + 1,
        middle_column - reach : middle_column + reach + 1,
    ]
    channels = []
    for c in range(3):
        source = np.fft.fftshift(np.fft.fft2(image[..., c].astype(np.float64)))
        target = np.fft.fftshift(np.fft.fft2(style[..., c].astype(np.float64)))
        amplitude, phase = np.abs(source), np.angle(source)
        amplitude[block] = np.abs(target)[block]
        mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase)))
        assert np.abs(mixed.imag).max() < 1e-6
        channels.append(mixed.real)
    return np.stack(channels, axis=-1)
