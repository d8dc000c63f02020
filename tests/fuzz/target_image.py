"""Image and label files: damaged bytes of every format that is read."""

from __future__ import annotations

import contextlib
import functools
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from t2sda.images import read_header, read_image, read_label, reader
from tests.fuzz.byte_inputs import damaged, flipped
from tests.fuzz.harness import Target

SIZE = (16, 24)
IMAGES = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "TGA")
LABELS = ("PNG", "PNG palette", "PNG 16 bit", "TIFF", "TIFF int32", "TIFF float", "BMP")


@functools.cache
def image_of(kind: str) -> bytes:
    """A whole image of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return _saved(Image.fromarray(pixels), kind)


@functools.cache
def label_of(kind: str) -> bytes:
    """A whole label of noise."""
    file_format, _, variant = kind.partition(" ")
    ids = np.random.default_rng(0).integers(0, 19, SIZE)
    types = {"16 bit": np.uint16, "int32": np.int32, "float": np.float32}
    image = Image.fromarray(ids.astype(types.get(variant, np.uint8)))
    if variant == "palette":
        image = image.convert("P")
    return _saved(image, file_format)


def _saved(image: Image.Image, file_format: str) -> bytes:
    content = io.BytesIO()
    image.save(content, file_format)
    return content.getvalue()


def sources(kinds: tuple[str, ...], content: object) -> st.SearchStrategy[tuple[str, bytes]]:
    """(kind, bytes): whole ones, others damaged, and noise."""
    own = st.sampled_from(kinds)

    def of(kind: str) -> st.SearchStrategy[tuple[str, bytes]]:
        whole = st.just(content(kind))  # type: ignore[operator]
        return st.tuples(st.just(kind), st.one_of(flipped(whole), flipped(whole), damaged(whole)))

    return own.flatmap(of) | st.tuples(st.just("noise"), st.binary(max_size=200))


def run_image(source: tuple[str, bytes], folder: Path) -> None:
    """What is read is an image as large as its header says; of a PNG every damage is found."""
    kind, content = source
    path = folder / "a.png"
    path.write_bytes(content)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.size > 0
    assert read_header(path).size == image.shape[:2]
    if kind == "PNG":
        (folder / "whole.png").write_bytes(image_of(kind))
        assert np.array_equal(image, read_image(folder / "whole.png"))


def run_label(source: tuple[str, bytes], folder: Path) -> None:
    """What is read are ids that a label can hold; of a PNG every damage is found."""
    kind, content = source
    path = folder / "a.png"
    path.write_bytes(content)
    label = read_label(path)
    assert label.dtype in (np.uint8, np.uint16)
    assert label.ndim == 2
    assert label.size > 0
    if kind.startswith("PNG"):
        (folder / "whole.png").write_bytes(label_of(kind))
        assert np.array_equal(label, read_label(folder / "whole.png"))


@contextlib.contextmanager
def _as_it_comes(name: object):
    yield


def _let_decoders_fail_as_they_like(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reader, "errors_name", _as_it_comes)


def _take_any_number_for_an_id(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reader, "read_label", lambda path: reader.read_samples(path))
    patch.setattr("tests.fuzz.target_image.read_label", lambda path: reader.read_samples(path))


IMAGE = Target(sources(IMAGES, image_of), run_image, (_let_decoders_fail_as_they_like,))
LABEL = Target(
    sources(LABELS, label_of),
    run_label,
    (_let_decoders_fail_as_they_like, _take_any_number_for_an_id),
)
