"""Every public set, read from tiny files that are laid out as it is distributed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from t2sda.data.catalog import DATASETS, DATASETS_VARIABLE, open_dataset
from t2sda.data.check import check_dataset
from t2sda.data.dataset_files import read_dataset_file
from t2sda.data.label_tables import CARLA_TAGS, CARLA_TAGS_0_9_13
from t2sda.data.transforms import keep_ratio_size
from t2sda.errors import UnreadableFileError
from tests.data.layouts import (
    CARLA_FILE,
    LAYOUTS,
    carla,
    halves,
    write_ids,
    write_image,
    write_synthia,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATASETS_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("layout", "dataset", "num_images", "train_ids"),
    [
        ("gta5", "gta5_train", 1, (0, 255)),
        ("synthia", "synthia_train", 1, (0, 255)),
        ("cityscapes", "cityscapes_train", 1, (18, 255)),
        ("cityscapes", "cityscapes_val", 1, (18, 255)),
        ("cityscapes", "cityscapes_test", 1, None),
        ("acdc", "acdc_train", 4, (18, 255)),
        ("acdc", "acdc_val", 4, (18, 255)),
        ("acdc", "acdc_test", 4, None),
        ("acdc", "acdc_night_val", 1, (18, 255)),
        ("dark_zurich", "dark_zurich_train", 1, None),
        ("dark_zurich", "dark_zurich_twilight_train", 1, None),
        ("dark_zurich", "dark_zurich_val", 1, (10, 255)),
        ("dark_zurich", "dark_zurich_test", 1, None),
        ("bdd100k", "bdd100k_train", 1, (16, 255)),
        ("bdd100k", "bdd100k_val", 1, (16, 255)),
        ("bdd100k", "bdd100k_test", 1, None),
        ("camvid_701", "camvid_701", 1, (17, 255)),
        ("camvid_segnet", "camvid_segnet_train", 1, (18, 255)),
        ("camvid_segnet", "camvid_segnet_test", 1, (18, 255)),
        ("mapillary", "mapillary_train", 1, (14, 255)),
        ("mapillary", "mapillary_val", 1, (14, 255)),
        ("mapillary", "mapillary_test", 1, None),
        ("mapillary", "mapillary_v1_train", 1, (14, 255)),
        ("mapillary", "mapillary_v1_val", 1, (14, 255)),
        ("idd", "idd_train", 2, (8, 255)),
        ("idd", "idd_val", 1, (8, 255)),
        ("idd", "idd_test", 1, None),
        ("kitti", "kitti_train", 1, (13, 255)),
        ("kitti", "kitti_test", 1, None),
        ("vkitti2", "vkitti2_train", 2, (13, 255)),
        ("synscapes", "synscapes_train", 1, (16, 255)),
        ("comma10k", "comma10k_train", 1, (3, 4)),
        ("comma10k", "comma10k_val", 1, (3, 4)),
    ],
)
def test_read_as_distributed(
    folder: Path, layout: str, dataset: str, num_images: int, train_ids: tuple[int, int] | None
) -> None:
    LAYOUTS[layout](folder)
    opened = open_dataset(dataset)
    sample = opened.load(0)
    assert len(opened) == num_images
    assert opened.labelled == (train_ids is not None)
    if train_ids is None:
        assert sample.label is None
    else:
        assert sample.label is not None
        np.testing.assert_array_equal(sample.label, halves(*train_ids, sample.image.shape[:2]))
    stem = dataset.rpartition("_")[0]
    others = [open_dataset(f"{stem}_{split}") for split in ("train", "val") if stem == "comma10k"]
    report = check_dataset(opened, DATASETS.get(dataset), others=others)
    assert [found for found in report.findings if found.fatal] == []
    assert "labels without image" not in {found.kind for found in report.findings}


def test_a_recording_of_carla_in_six_lines(tmp_path: Path) -> None:
    carla(tmp_path)
    (tmp_path / "town.yaml").write_text(CARLA_FILE)
    (spec,) = read_dataset_file(tmp_path / "town.yaml")
    label = spec.open().load(0).label
    np.testing.assert_array_equal(label, halves(13, 0))
    assert not check_dataset(spec.open(), spec).fatal


def test_tags_of_carla_are_those_of_its_documentation() -> None:
    ids = np.arange(29, dtype=np.uint8)[None]
    train_ids = CARLA_TAGS.to_train_ids(ids)[0].tolist()
    assert train_ids[:20] == [255, *range(19)]
    assert train_ids[20:] == [255, 255, 255, 255, 0, 255, 255, 255, 255]
    old = CARLA_TAGS_0_9_13.to_train_ids(ids[:, :23])[0].tolist()
    assert old[:14] == [255, 2, 4, 255, 11, 5, 0, 0, 1, 8, 13, 3, 7, 10]
    assert old[14:] == [255, 255, 255, 255, 6, 255, 255, 255, 9]


def test_every_shipped_set_of_files_has_a_layout_here() -> None:
    ours = ("streets_", "rendered_", "camvid_train", "camvid_val", "camvid_test_dusk")
    public = [name for name in DATASETS.names() if not name.startswith(ours)]
    assert [name for name in public if not name.startswith(tuple(LAYOUTS))] == []


@pytest.mark.parametrize("other_root", ["RAND_CITYSCAPES", "synthia"])
def test_synthia_is_found_under_each_of_its_names(folder: Path, other_root: str) -> None:
    write_image(folder / other_root / "RGB/0000000.png")
    write_synthia(folder / other_root / "GT/LABELS/0000000.png", halves(12, 0))
    label = open_dataset("synthia_train").load(0).label
    np.testing.assert_array_equal(label, halves(17, 255))


def test_converted_synthia_labels_are_refused_with_the_remedy(folder: Path) -> None:
    write_image(folder / "synthia/RGB/0000000.png")
    write_ids(folder / "synthia/GT/LABELS/0000000.png", halves(3, 0))
    with pytest.raises(UnreadableFileError, match=r"16-bit PNGs of three channels.*label_format"):
        open_dataset("synthia_train").load(0)


@pytest.mark.parametrize("break_it", ["cut short", "one bit turned", "text"])
def test_damaged_synthia_labels_are_refused(folder: Path, break_it: str) -> None:
    LAYOUTS["synthia"](folder)
    path = folder / "synthia/RAND_CITYSCAPES/GT/LABELS/0000000.png"
    whole = path.read_bytes()
    turned = bytes([*whole[:60], whole[60] ^ 1, *whole[61:]])
    path.write_bytes(
        {"cut short": whole[:-20], "one bit turned": turned, "text": b"text"}[break_it]
    )
    with pytest.raises(UnreadableFileError, match=r"0000000\.png: "):
        open_dataset("synthia_train").load(0)


@pytest.mark.parametrize(
    ("size", "bound", "expected"),
    [
        # docs/fidelity.md, A6
        ((1052, 1914), (720, 1280), (704, 1280)),
        ((1046, 1914), (720, 1280), (700, 1280)),
        ((1052, 1914), (1440, 2560), (1407, 2560)),
        ((760, 1280), (760, 1280), (760, 1280)),
        ((1024, 2048), (512, 1024), (512, 1024)),
    ],
)
def test_keep_ratio_sizes_of_the_real_sets(
    size: tuple[int, int], bound: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert keep_ratio_size(size, bound) == expected


def test_opencv_would_expand_a_palette(folder: Path) -> None:
    # Why labels are not decoded with OpenCV: indices become colors.
    LAYOUTS["gta5"](folder)
    expanded = cv2.imread(str(folder / "gta5/labels/00001.png"), cv2.IMREAD_UNCHANGED)
    assert expanded is not None
    assert expanded.ndim == 3
