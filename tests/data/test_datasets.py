"""Files that are not what they should be: every message names the file and what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.data.catalog import DatasetSpec, open_dataset
from t2sda.errors import MissingFileError, UserError


def file_of(harbour: DatasetSpec, name: str) -> Path:
    return Path(harbour.root) / name


def test_image_without_label(harbour: DatasetSpec) -> None:
    file_of(harbour, "labels/1.png").unlink()
    with pytest.raises(MissingFileError, match=r"image .*images/1\.png has no label; expected"):
        harbour.open().load(1)


def test_label_id_out_of_range_names_the_file(harbour: DatasetSpec) -> None:
    Image.fromarray(np.full((40, 60), 19, np.uint8)).save(file_of(harbour, "labels/1.png"))
    with pytest.raises(UserError, match=r"'harbour': .*labels/1\.png: label ids 19 are unknown"):
        harbour.open().load(1)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_image(harbour: DatasetSpec, kind: str) -> None:
    whole = file_of(harbour, f"images/9.{kind}")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    whole.write_bytes(whole.read_bytes()[:-200])
    spec = dataclasses.replace(harbour, images=f"images/9.{kind}")
    with pytest.raises(UserError, match=rf"images/9\.{kind}: cannot be decoded"):
        spec.open().load(0)


def test_truncated_label(harbour: DatasetSpec) -> None:
    label = file_of(harbour, "labels/1.png")
    label.write_bytes(label.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"labels/1\.png: cannot be decoded"):
        harbour.open().load(1)


def test_text_called_png(harbour: DatasetSpec) -> None:
    file_of(harbour, "images/1.png").write_text("not an image")
    with pytest.raises(UserError, match=r"images/1\.png: cannot be decoded"):
        harbour.open().load(1)


def test_label_of_another_size(harbour: DatasetSpec) -> None:
    Image.fromarray(np.zeros((20, 60), np.uint8)).save(file_of(harbour, "labels/1.png"))
    with pytest.raises(UserError, match=r"is 20x60 .* its image .* is 40x60"):
        harbour.open().load(1)


def test_colors_where_ids_are_due(harbour: DatasetSpec) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(file_of(harbour, "labels/1.png"))
    with pytest.raises(UserError, match="a label has one channel of class ids"):
        harbour.open().load(1)


def test_palette_label_gives_its_indices(harbour: DatasetSpec) -> None:
    indices = np.random.default_rng(0).integers(0, 19, (40, 60), dtype=np.uint8)
    label = Image.fromarray(indices, mode="P")
    label.putpalette(list(range(57)))
    label.save(file_of(harbour, "labels/1.png"))
    loaded = harbour.open().load(1).label
    assert loaded is not None
    np.testing.assert_array_equal(loaded, indices)


def test_label_is_not_read_when_not_asked_for(harbour: DatasetSpec) -> None:
    file_of(harbour, "labels/1.png").unlink()
    assert harbour.open().load(1, with_label=False).label is None


def test_drawn_streets_are_a_dataset() -> None:
    dataset = open_dataset("streets_hazy_val")
    first, again = dataset.load(3), dataset.load(3)
    assert first.label is not None
    assert first.image.shape == (256, 512, 3)
    np.testing.assert_array_equal(first.image, again.image)
    assert dataset.load(3, with_label=False).label is None
