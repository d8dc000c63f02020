"""Result files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from t2sda.images.files import TooManyPixelsError
from t2sda.inference.results import (
    DRAWN,
    check_label_ids,
    label_ids,
    write_png,
    write_results,
)
from t2sda.inference.segmenter import Segmentation
from t2sda.inference.visualisation import color_map
from t2sda.streets import draw_street


def test_every_kind_is_a_whole_png(tmp_path: Path) -> None:
    image, labels = draw_street("clear", 9, 0, (64, 96))
    write_results(tmp_path / "sub/a.b", image, Segmentation(labels), CITYSCAPES_19, list(DRAWN))
    written = {path.name: Image.open(path) for path in (tmp_path / "sub").iterdir()}
    assert set(written) == {f"a.b_{kind}.png" for kind in DRAWN}
    trainid = written["a.b_trainid.png"]
    assert trainid.mode == "L"
    assert np.array_equal(np.asarray(trainid), labels)
    colors = np.asarray(written["a.b_color.png"])
    assert np.array_equal(colors, color_map(labels, CITYSCAPES_19))


def test_label_ids_are_those_of_cityscapes() -> None:
    from cityscapesscripts.helpers.labels import trainId2label

    train_ids = np.array([[*range(19), 255]], dtype=np.uint8)
    expected = [[*(trainId2label[index].id for index in range(19)), 0]]
    assert label_ids(train_ids, CITYSCAPES_19).tolist() == expected


def test_label_ids_need_classes_of_cityscapes() -> None:
    names = ("quay", *CITYSCAPES_19.class_names[1:])
    with pytest.raises(UserError, match="'quay', a class of this model, has no label id"):
        check_label_ids(replace(CITYSCAPES_19, class_names=names))


def test_probabilities_are_an_array_file(tmp_path: Path) -> None:
    image, labels = draw_street("clear", 9, 0, (64, 96))
    probabilities = np.random.default_rng(0).random((19, 64, 96)).astype(np.float16)
    found = Segmentation(labels, probabilities)
    write_results(tmp_path / "a", image, found, CITYSCAPES_19, ["probabilities"])
    assert np.array_equal(np.load(tmp_path / "a_probabilities.npy"), probabilities)


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UserError, match=r"a\.png: cannot be written"):
            write_png(folder / "a.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"a\.png: cannot be written"):
        write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file"]


def test_a_side_longer_than_png_takes_is_said(tmp_path: Path) -> None:
    with pytest.raises(TooManyPixelsError, match=r"a\.png: 1x1000001 .*smaller"):
        write_png(tmp_path / "a.png", np.zeros((1, 1_000_001), np.uint8))
    assert not list(tmp_path.iterdir())
