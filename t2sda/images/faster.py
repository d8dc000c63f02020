"""Faster decoders, where they are installed: they change no pixel, as tests compare."""

from __future__ import annotations

import importlib
from typing import Any


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


simplejpeg = _installed("simplejpeg")
"""JPEG: a fifth faster than Pillow, and refuses what libjpeg only warns of."""
imagecodecs = _installed("imagecodecs")
"""PNG: 1.4 times as fast as OpenCV; `pip install t2sda[fast]`, since it takes 80 MB."""
