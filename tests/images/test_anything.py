"""What `predict` takes for an image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2sda.errors import MissingFileError, UserError
from t2sda.images import as_image, is_one_image

COLORS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLORS).save(buffer, "PNG")
    return buffer.getvalue()


def test_everything_that_holds_an_image_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    with path.open("rb") as file, Image.open(path) as image:
        for source in (
            *(COLORS, path, str(path), png(), bytearray(png()), memoryview(png())),
            *(io.BytesIO(png()), file, image, Image.fromarray(COLORS)),
            torch.from_numpy(COLORS.transpose(2, 0, 1).copy()),
            torch.nn.Parameter(torch.from_numpy(COLORS).permute(2, 0, 1), requires_grad=False),
        ):
            assert is_one_image(source)
            np.testing.assert_array_equal(as_image(source), COLORS)
    assert not is_one_image([COLORS])
    assert not is_one_image((path,))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.jpg", "addresses are not fetched; download the file first"),
        ("s3://bucket/a.jpg", "addresses are not fetched"),
        (5, "cannot take a int as an image; an image is a path"),
        (None, "cannot take a NoneType as an image"),
        ({"image": COLORS}, "cannot take a dict as an image"),
        (COLORS.astype(np.float32), "found an array of float32 with shape"),
        (torch.zeros(3, 4, 5), "found a tensor of torch.float32 with shape"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), "a uint8 tensor (3, height, width)"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), "found a tensor of torch.uint8 with shape"),
        (torch.zeros(3, 0, 5, dtype=torch.uint8), "found a tensor of torch.uint8 with shape"),
        (b"", "image given as bytes: cannot be decoded (no bytes)"),
        (b"hello", "image given as bytes: cannot be decoded (its content is of no known"),
        (io.BytesIO(), "open file: cannot be decoded (no bytes)"),
        (io.StringIO("hello"), "open file: open it in binary mode"),
        (Image.new("F", (2, 2), 7), "PIL image: cannot be decoded (its floating-point values"),
        (Image.new("RGB", (0, 2)), "PIL image: has no pixels"),
    ],
)
def test_everything_else_gets_one_message(source: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        as_image(source)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(MissingFileError, match="nowhere.png: no such file"):
        as_image("nowhere.png")
