"""A dataset of another one's images: its file, its labels, and what is wrong with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from t2sda.config import load_config
from t2sda.data.catalog import DATASETS, DrawnStreetsSpec, open_dataset, register_dataset
from t2sda.data.dataset_files import read_dataset_file, register_dataset_files
from t2sda.data.domains import DomainPairs
from t2sda.data.relabelled import png_name
from t2sda.data.transforms import Resize
from t2sda.errors import MissingFileError, UserError
from t2sda.inference.results import write_png
from t2sda.registry import UnknownNameError
from tests.components import components_restored

SIZE = (64, 80)


@pytest.fixture(autouse=True)
def _tiny() -> Iterator[None]:
    with components_restored():
        register_dataset(DrawnStreetsSpec("tiny", "hazy", 3, 2, SIZE))
        yield


@pytest.fixture
def description(tmp_path: Path) -> Path:
    """Labels of road, and of nothing on the right."""
    for index in range(2):
        label = np.zeros(SIZE, dtype=np.uint8)
        label[:, 40:] = 255
        write_png(tmp_path / f"labels/tiny_{index:05d}.png", label)
    path = tmp_path / "dataset.yaml"
    path.write_text("{name: mine, images_of: tiny, labels: labels, taxonomy: cityscapes_19}")
    return path


def test_images_are_the_other_ones_and_labels_the_folders(description: Path) -> None:
    register_dataset_files([str(description)])
    dataset, images = open_dataset("mine"), open_dataset("tiny")
    assert (dataset.labelled, dataset.has_made_labels, len(dataset)) == (True, True, 2)
    np.testing.assert_array_equal(dataset.load(1).image, images.load(1).image)
    label = dataset.load(1).label
    assert label is not None
    assert (label[:, :40] == 0).all()
    assert (label[:, 40:] == 255).all()
    assert dataset.load_image(0, Resize((32, 40))).shape == (32, 40, 3)
    assert dataset.fingerprint()["name"] == "mine"
    assert len(list(dataset.label_identity())) == 4
    assert "images of tiny" in DATASETS.get("mine").location


def test_crops_of_a_run_have_the_labels_without_a_word_of_an_oracle(
    description: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register_dataset_files([str(description)])
    keys = ["META_ARCH.PASSES", "[source, labelled_target]", "DATA.CROP_SIZE", "[48, 48]"]
    caplog.set_level(logging.WARNING, logger="t2sda")
    for target, oracle in (("mine", False), ("tiny", True)):
        cfg = load_config(None, [*keys, "DATASETS.SOURCE", "tiny", "DATASETS.TARGET", target])
        pairs = DomainPairs.from_config(cfg, target_labels=True)
        sample = pairs[0]
        assert set(np.unique(sample.target.label)) <= ({0, 255} if not oracle else {*range(256)})  # type: ignore[union-attr]
        assert ("true labels of 'tiny'" in caplog.text) == oracle


@pytest.mark.parametrize("reader", ["META_ARCH.PASSES", "DATA.TARGET_CROP"])
def test_pseudo_labels_that_label_nothing_are_refused_before_the_first_step(
    reader: str, description: Path
) -> None:
    for path in (description.parent / "labels").iterdir():
        write_png(path, np.full(SIZE, 255, dtype=np.uint8))
    register_dataset_files([str(description)])
    is_pass = reader == "META_ARCH.PASSES"
    keys = [reader, "[source, labelled_target]" if is_pass else "class_balanced"]
    keys += [] if is_pass else ["META_ARCH.PASSES", "[source, entropy]"]
    cfg = load_config(None, [*keys, "DATASETS.SOURCE", "tiny", "DATASETS.TARGET", "mine"])
    with pytest.raises(UserError, match=r"'mine': all pixels of 2 of its labels are ignored, .*"):
        DomainPairs.from_config(cfg, target_labels=is_pass)


def test_an_image_without_pseudo_label_is_named(description: Path) -> None:
    (dataset,) = (spec.open() for spec in read_dataset_file(description))
    (description.parent / "labels/tiny_00001.png").unlink()
    with pytest.raises(MissingFileError, match=r"image tiny_00001 has no pseudo-label; expected"):
        dataset.load_label(1)


def test_a_label_of_another_size_or_of_no_class_is_named(description: Path) -> None:
    (dataset,) = (spec.open() for spec in read_dataset_file(description))
    write_png(description.parent / "labels/tiny_00000.png", np.zeros((64, 60), dtype=np.uint8))
    with pytest.raises(UserError, match="tiny_00000.png is 64x60 .* but its image .* is 64x80"):
        dataset.load_label(0)
    write_png(description.parent / "labels/tiny_00001.png", np.full(SIZE, 19, dtype=np.uint8))
    with pytest.raises(UserError, match=r"'mine': .*tiny_00001.png: .*19"):
        dataset.load_label(1)


def test_missing_labels_and_unknown_images_are_named(description: Path) -> None:
    text = description.read_text()
    description.write_text(text.replace("labels: labels", "labels: elsewhere"))
    with pytest.raises(MissingFileError, match="elsewhere; make the labels with `t2sda pseudo-la"):
        read_dataset_file(description)[0].open()
    description.write_text(text.replace("images_of: tiny", "images_of: tinier"))
    with pytest.raises(UnknownNameError, match="tinier.*tiny"):
        read_dataset_file(description)[0].open()
    description.write_text(text.replace("labels: labels", "labels: labels, images: '*.png'"))
    with pytest.raises(UserError, match="images: unknown key"):
        read_dataset_file(description)
    description.write_text("{name: mine, images_of: tiny}")
    with pytest.raises(UserError, match="`labels` is missing"):
        read_dataset_file(description)


def test_labels_lie_below_their_folder_whatever_images_are_called() -> None:
    assert str(png_name("../aachen/a.b_leftImg8bit.jpg")) == "aachen/a.b_leftImg8bit.png"
    assert str(png_name("/data/x")) == "data/x.png"
