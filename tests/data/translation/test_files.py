"""Translated images from files: the right window of the right file, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import t2sda.builtin  # noqa: F401  (fills the registries)
from t2sda.config import ConfigError, load_config
from t2sda.data.catalog import DrawnStreetsSpec, open_dataset, register_dataset
from t2sda.data.domains import DomainPairs
from t2sda.data.samples import FailedSample
from t2sda.data.transforms import Box
from t2sda.data.translation.files import FilesTranslator
from t2sda.errors import MissingFileError, UserError
from tests.components import components_restored

SIZE = (64, 96)


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with components_restored():
        register_dataset(DrawnStreetsSpec("tiny", "clear", 3, 2, SIZE))
        yield


def written(folder: Path, ending: str = ".png") -> Path:
    """Negatives of both images."""
    dataset = open_dataset("tiny")
    for index in range(2):
        negative = 255 - dataset.load(index).image[..., ::-1]
        cv2.imwrite(str(folder / f"tiny_{index:05d}{ending}"), negative)
    return folder


def pairs(root: Path, **settings: str) -> DomainPairs:
    keys = [
        *("META_ARCH.PASSES", "[translated]", "DATASETS.SOURCE", "tiny"),
        *("TRANSLATION.NAME", "Files", "TRANSLATION.ROOT", str(root)),
        *("DATA.CROP_SIZE", "[32, 48]", "DATA.MAX_CLASS_SHARE", "1.0"),
    ]
    return DomainPairs.from_config(load_config(None, [*keys, *sum(settings.items(), ())]))


@pytest.mark.parametrize("window", ["[]", "[48, 64]"])
def test_a_crop_is_that_of_the_source_in_the_other_file(tmp_path: Path, window: str) -> None:
    found = pairs(written(tmp_path), **{"DATA.SOURCE_WINDOW": window})
    for position in range(6):
        source = found[position].source  # type: ignore[union-attr]
        assert source.translated is not None
        assert source.translated.dtype == np.float32
        np.testing.assert_array_equal(source.translated, 255.0 - source.image)


def test_an_image_of_another_size_is_resized_as_the_source(tmp_path: Path) -> None:
    half = np.full((32, 48, 3), 7, dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), half)
    found = FilesTranslator(tmp_path).load("a.png", SIZE, Box(8, 16, 20, 30))
    assert found.shape == (20, 30, 3)
    assert np.abs(found - 7).max() <= 1


def test_images_lie_below_the_root_as_below_the_sources(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train/a.png"), np.zeros((*SIZE, 3), dtype=np.uint8))
    assert FilesTranslator(tmp_path).load("train/a.jpg", SIZE, Box(0, 0, *SIZE)).max() == 0


def test_an_image_without_a_translated_one_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "tiny_00001.png").unlink()
    found = [pairs(tmp_path)[position] for position in range(2)]
    (failed,) = (item for item in found if isinstance(item, FailedSample))
    assert "source image tiny_00001 has no translated one; expected" in failed.message
    with pytest.raises(MissingFileError, match=r"tiny_00001.png \(or .jpg, .jpeg\), below TRANSL"):
        FilesTranslator(tmp_path).load("tiny_00001", SIZE, Box(0, 0, *SIZE))


def test_an_image_of_another_ratio_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="is 64x64 .* another ratio than its source image, 64x96"):
        FilesTranslator(tmp_path).load("a", SIZE, Box(0, 0, *SIZE))


def test_the_folder_is_asked_for(tmp_path: Path) -> None:
    keys = ["META_ARCH.PASSES", "[translated]", "TRANSLATION.NAME", "Files"]
    with pytest.raises(ConfigError, match=r"TRANSLATION\.ROOT: empty; name the folder"):
        load_config(None, keys)
    with pytest.raises(UserError, match="nowhere is no folder"):
        FilesTranslator(tmp_path / "nowhere")
