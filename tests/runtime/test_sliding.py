"""Files that slide over images: as the slow reference, described in the file, or an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2sda import load_model
from t2sda.errors import UserError
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.sliding import Slides
from tests.references import hrda as reference
from tests.tiny_onnx import WEIGHTS, metadata, tiny_model, with_value, write_tiny

WINDOW = (64, 96)
STEP = (32, 48)


def image_of(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height + width)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def marked(images: np.ndarray) -> np.ndarray:
    """Logits that tell a window from every other: its first pixel, and where they are in it."""
    first = images[:, :1, :1].astype(np.float32)
    rows, columns = np.indices(images.shape[1:3], dtype=np.float32)
    maps = first * np.stack([rows, columns, rows * columns / 99], axis=-1)
    return np.ascontiguousarray(maps.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(64, 96), (64, 150), (100, 97), (131, 200)])
def test_logits_are_averaged_as_by_the_slow_reference(size: tuple[int, int]) -> None:
    image = image_of(*size)
    corners = reference.window_corners(size, WINDOW, STEP)
    seen = [image[top : top + WINDOW[0], left : left + WINDOW[1]] for top, left in corners]
    expected = reference.averaged([marked(part[None])[0] for part in seen], corners, size)
    found = Slides(marked, WINDOW, STEP, "nhwc")(image[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    turned = Slides(lambda images: marked(images.transpose(0, 2, 3, 1)), WINDOW, STEP, "nchw")
    assert np.array_equal(turned(image.transpose(2, 0, 1)[None])[0], found)


def sliding_file(path: Path, **changes: Any) -> Path:
    properties = metadata("logits", window_step=STEP, **changes).to_properties()
    return write_tiny(path, tiny_model("logits", properties=properties))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_slides_takes_images_as_they_are(runtime: str, tmp_path: Path) -> None:
    model = load_model(sliding_file(tmp_path / "m.onnx"), runtime)
    for size in ((131, 200), (40, 300), (10, 20)):  # smaller ones are continued by their border
        image = image_of(*size)
        expected = np.einsum("cd,hwd->chw", WEIGHTS[..., 0, 0], image.astype(np.float32))
        np.testing.assert_allclose(model.logits(image), expected, rtol=1e-4, atol=1e-2)
        assert np.array_equal(model.predict(image), model.logits(image).argmax(axis=0))


def test_images_are_resized_to_fit_the_bound_of_evaluations_first(tmp_path: Path) -> None:
    model = load_model(sliding_file(tmp_path / "m.onnx", image_bound=(100, 200)))
    frame = model.letterbox(image_of(200, 300))
    assert (frame.image.shape, frame.size) == ((100, 150, 3), (200, 300))
    assert model.predict(image_of(200, 300)).shape == (200, 300)


def test_the_step_is_read_back_and_sealed() -> None:
    written = metadata("logits", window_step=STEP, image_bound=(512, 1024))
    assert Metadata.from_properties(written.to_properties(), "m.onnx") == written


@pytest.mark.parametrize("step", [[0, 48], [65, 48], [32], "32", [32.5, 48], [-1, 2]])
def test_steps_that_leave_pixels_out_are_refused(step: Any) -> None:
    properties = metadata("logits", window_step=STEP).to_properties()
    with pytest.raises(UserError, match=r"m\.onnx: its metadata is damaged"):
        Metadata.from_properties(with_value(properties, "window_step", step), "m.onnx")


@pytest.mark.parametrize(("key", "value"), [("output_kind", "labels"), ("image_size", "dynamic")])
def test_only_logits_of_one_size_slide(key: str, value: str) -> None:
    properties = metadata("logits", window_step=STEP).to_properties()
    with pytest.raises(UserError, match=r"m\.onnx: its metadata is damaged"):
        Metadata.from_properties(with_value(properties, key, f'"{value}"'), "m.onnx")


def test_a_step_changed_after_the_export_is_an_error(tmp_path: Path) -> None:
    properties = metadata("logits", window_step=STEP).to_properties()
    path = write_tiny(tmp_path / "m.onnx", tiny_model("logits", properties=properties))
    path.write_bytes(path.read_bytes().replace(b"[32, 48]", b"[64, 96]"))
    with pytest.raises(UserError, match="do not belong together"):
        load_model(path)


def test_logits_of_another_size_than_the_window_are_an_error() -> None:
    slides = Slides(lambda images: np.zeros((1, 3, 8, 8), np.float32), WINDOW, STEP, "nhwc")
    with pytest.raises(UserError, match="for a window of 64x96"):
        slides(image_of(64, 200)[None])
