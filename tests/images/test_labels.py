"""Labels keep the numbers of their files; what is no id is refused with its value."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from t2sda.data.catalog import DatasetSpec
from t2sda.data.check import check_dataset
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UnreadableFileError, UserError
from t2sda.images import read_image, read_label

IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)
ORIENTATION = 0x0112


def tiff(path: Path, label: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(".tiff", label)[1].tobytes())
    return path


@pytest.mark.parametrize(
    ("dtype", "value", "said"),
    [
        (np.int32, -1, "-1"),
        (np.int32, 65536, "65536"),
        (np.int32, 65537 + 2**16, "131073"),
        (np.uint32, 2**32 - 1, "4294967295"),
        (np.uint32, 2**31, "2147483648"),
        (np.int16, -2, "-2"),
        (np.int8, -1, "-1"),
        (np.float32, 1.5, "1.5"),
        (np.float32, np.nan, "nan"),
        (np.float32, np.inf, "inf"),
        (np.float32, -3, "-3.0"),
        (np.float32, 70000, "70000.0"),
    ],
)
def test_what_is_no_id_is_refused_with_its_value(
    tmp_path: Path, dtype: type, value: float, said: str
) -> None:
    label = IDS.astype(dtype)
    label[1, 2] = value
    path = tiff(tmp_path / "a.tif", label)
    with pytest.raises(UnreadableFileError, match=rf"a\.tif: holds {said} at row 1, column 2;"):
        read_label(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32])
def test_whole_numbers_of_any_type_are_ids(tmp_path: Path, dtype: type) -> None:
    label = IDS.astype(dtype)
    if np.dtype(dtype).itemsize > 2:
        label[0, 0] = 65535
    read = read_label(tiff(tmp_path / "a.tif", label))
    assert read.dtype in (np.uint8, np.uint16)
    np.testing.assert_array_equal(read, label)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiffs_of_few_bits_give_their_numbers_and_not_shades(
    tmp_path: Path, bits: int, white_is_zero: bool
) -> None:
    ids = (np.arange(16) % (1 << bits)).astype(np.uint8).reshape(2, 8)
    unpacked = np.unpackbits(ids[..., None], axis=2)[..., -bits:].reshape(2, -1)
    pixels = np.packbits(unpacked, axis=1).tobytes()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    photometric = 0 if white_is_zero else 1
    values = ((256, 8), (257, 2), (258, bits), (259, 1), (262, photometric), (278, 2))
    for tag, value in (*values, (273, 0), (279, len(pixels))):
        tags[tag] = value
    content = b"II*\0" + (8).to_bytes(4, "little") + tags.tobytes(8) + pixels
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_label(path), ids)


@pytest.mark.parametrize("largest", [11, 255, 1000, 65535])
def test_a_pgm_gives_its_numbers_whatever_its_largest(tmp_path: Path, largest: int) -> None:
    order = ">u2" if largest > 255 else "u1"
    header = f"P5\n# a comment\n4 3\n{largest}\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + IDS.astype(order).tobytes())
    np.testing.assert_array_equal(read_label(tmp_path / "a.pgm"), IDS)


def save(path: Path, array: np.ndarray, orientation: int = 1) -> None:
    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION] = orientation
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path, exif=exif)


def spec(root: Path, image_orientation: int, label: np.ndarray, orientation: int) -> DatasetSpec:
    """Images as a phone leaves them: all on their side as stored, turned by their tag."""
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    save(root / "images/a.png", image, image_orientation)
    save(root / "labels/a.png", label, orientation)
    return DatasetSpec("phone", str(root), "images/*.png", "labels/{stem}.png", CITYSCAPES_19)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_and_label_with_one_tag_are_turned_alike(tmp_path: Path, orientation: int) -> None:
    dataset = spec(tmp_path, orientation, IDS, orientation).open()
    sample = dataset.load(0)
    assert sample.label is not None
    assert sample.label.shape == sample.image.shape[:2] == dataset.size_of(0)
    save(tmp_path / "as_image.png", np.dstack([IDS] * 3), orientation)
    np.testing.assert_array_equal(sample.label, read_image(tmp_path / "as_image.png")[..., 0])


@pytest.mark.parametrize("orientation", range(5, 9))
def test_a_label_may_be_drawn_on_the_image_as_it_is_seen(tmp_path: Path, orientation: int) -> None:
    drawn = spec(tmp_path, orientation, IDS.T, 1)
    np.testing.assert_array_equal(drawn.open().load_label(0), IDS.T)
    notes = [finding.text for finding in check_dataset(drawn.open(), drawn).findings]
    assert any(f"turned by its EXIF orientation {orientation}" in note for note in notes)


def test_a_label_of_the_unturned_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="orientation 6, and the label was drawn on it"):
        spec(tmp_path, 6, IDS, 1).open().load(0)


@pytest.mark.parametrize(("image", "label"), [(1, 3), (3, 2), (6, 8)])
def test_tags_that_contradict_each_other_are_refused(
    tmp_path: Path, image: int, label: int
) -> None:
    contradicting = spec(tmp_path, image, IDS, label)
    with pytest.raises(UserError, match=f"label.*a.png has EXIF orientation {label}, but"):
        contradicting.open().load(0)
    report = check_dataset(contradicting.open(), contradicting)
    assert "labels that do not fit their image" in [found.kind for found in report.findings]
