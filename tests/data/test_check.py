"""What `data check` finds: every kind of finding provoked, with its file and its remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.data.catalog import DATASETS, DatasetSpec, OpensDataset
from t2sda.data.check import DatasetReport, check_dataset, duplicates_across
from t2sda.data.parallel import unseen
from t2sda.data.taxonomies import STREET_GROUPS_11
from t2sda.errors import MissingFileError

RGBA = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)


def upside_down() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 3
    return exif


Break = Callable[[Path], None]


def save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def check(spec: OpensDataset) -> DatasetReport:
    return check_dataset(spec.open(), spec)


def found(report: DatasetReport, kind: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.kind == kind]


def test_nothing_is_wrong_with_a_whole_set(harbour: DatasetSpec) -> None:
    report = check(harbour)
    assert report.findings == []
    assert report.sizes == {(40, 60): 5}
    expected = np.bincount(
        np.concatenate([harbour.open().load_label(i).ravel() for i in range(5)]), minlength=19
    )
    np.testing.assert_array_equal(report.pixels[:, :-1].sum(axis=0), expected)


@pytest.mark.parametrize(
    ("kind", "break_it", "message"),
    [
        ("unreadable images", lambda root: cut_short(root / "images/1.png"), "images/1.png: "),
        (
            "unreadable images",
            lambda root: (root / "images/1.png").write_bytes(b""),
            "images/1.png: cannot be decoded",
        ),
        ("unreadable images", lambda root: pipe(root / "images/1.png"), "1.png: is a pipe (FIFO)"),
        ("unreadable images", lambda root: zeros(root / "images/1.png"), "1.png: is a device"),
        ("unreadable labels", lambda root: cut_short(root / "labels/1.png"), "labels/1.png: "),
        (
            "unreadable labels",
            lambda root: save(root / "labels/1.png", np.zeros((40, 60, 3), np.uint8)),
            "a label has one channel of class ids",
        ),
        (
            "images without label",
            lambda root: (root / "labels/1.png").unlink(),
            "labels/1.png: add it, or remove the image",
        ),
        (
            "labels that do not fit their image",
            lambda root: save(root / "labels/1.png", np.zeros((40, 61), np.uint8)),
            "labels/1.png is 40x61 (height x width), but its image",
        ),
        (
            "unknown ids",
            lambda root: save(root / "labels/1.png", np.full((40, 60), 77, np.uint8)),
            "labels/1.png: label ids 77 are unknown to taxonomy 'cityscapes_19'",
        ),
    ],
)
def test_what_would_stop_a_training(
    harbour: DatasetSpec, kind: str, break_it: Break, message: str
) -> None:
    break_it(Path(harbour.root))
    report = check(harbour)
    (text,) = found(report, kind)
    assert message in text
    assert report.fatal


@pytest.mark.parametrize(
    ("kind", "break_it", "message"),
    [
        (
            "labels without image",
            lambda root: (root / "images/1.png").unlink(),
            "labels/1.png: no image that matches images/*.png belongs to it",
        ),
        (
            "images of one color",
            lambda root: save(root / "images/1.png", np.full((40, 60, 3), 255, np.uint8)),
            "images/1.png: every pixel is [255, 255, 255]",
        ),
        (
            "labels without a class",
            lambda root: save(root / "labels/1.png", np.full((40, 60), 255, np.uint8)),
            "labels/1.png: all pixels are ignored",
        ),
        (
            "images that are there twice",
            lambda root: shutil.copy(root / "images/0.png", root / "images/1.png"),
            "images/1.png is the same image as",
        ),
    ],
)
def test_what_is_worth_a_note(
    harbour: DatasetSpec, kind: str, break_it: Break, message: str
) -> None:
    break_it(Path(harbour.root))
    report = check(harbour)
    (text,) = found(report, kind)
    assert message in text
    assert not report.fatal


@pytest.mark.parametrize(
    ("kind", "save_it", "message"),
    [
        (
            "images with transparency",
            lambda path: Image.fromarray(RGBA).save(path),
            "its transparency is dropped; look at the colors below it",
        ),
        (
            "images of more than 8 bits",
            lambda path: Image.fromarray(RGBA[..., 0].astype(np.uint16) * 16).save(path),
            "16 bits a channel become 8, and the brightest 15 of 255; scale it if that is dark",
        ),
        (
            "images that are turned",
            lambda path: Image.fromarray(RGBA[..., :3]).save(path, exif=upside_down()),
            "turned by its EXIF orientation 3",
        ),
    ],
)
def test_what_the_reader_did_to_an_image(
    harbour: DatasetSpec, kind: str, save_it: Break, message: str
) -> None:
    save_it(Path(harbour.root) / "images/1.png")
    report = check(harbour)
    (text,) = found(report, kind)
    assert f"images/1.png: {message}" in text
    assert not report.fatal


def fill_labels(harbour: DatasetSpec, train_id: int, ignored_rows: int = 0) -> None:
    label = np.full((40, 60), train_id, np.uint8)
    label[:ignored_rows] = 255
    for index in range(5):
        save(Path(harbour.root) / f"labels/{index}.png", label)


def test_classes_that_never_occur_are_named_in_groups_where_there_are(harbour: DatasetSpec) -> None:
    fill_labels(harbour, 13)
    (text,) = found(check(harbour), "classes that never occur")
    assert text.startswith("harbour: road, sidewalk, building, wall,")
    grouped = check(replace(harbour, class_groups=STREET_GROUPS_11))
    (text,) = found(grouped, "classes that never occur")
    assert "car" not in text.split(";")[0]
    assert "truck" not in text


def test_many_ignored_pixels(harbour: DatasetSpec) -> None:
    fill_labels(harbour, 3, ignored_rows=30)
    assert found(check(harbour), "many ignored pixels") == [
        "harbour: 75 % of all pixels; check which ids are ignored"
    ]


def test_labels_of_ignored_pixels_alone_teach_nothing(harbour: DatasetSpec) -> None:
    fill_labels(harbour, 255)
    report = check(harbour)
    assert found(report, "no classes at all")
    assert report.fatal


def test_a_list_may_leave_labels_out_but_not_name_what_is_missing(harbour: DatasetSpec) -> None:
    (Path(harbour.root) / "some.txt").write_text("0\n7\n")
    listed = replace(harbour, images="images/{stem}.png", stems="some.txt")
    report = check(listed)
    assert found(report, "labels without image") == []
    (text,) = found(report, "missing images")
    assert "images/7.png: no such file; check list and folder" in text


def test_labels_of_another_split_in_the_same_folder_are_known(harbour: DatasetSpec) -> None:
    part = replace(harbour, images="images/[012].png")
    alone = check_dataset(part.open(), part)
    assert len(found(alone, "labels without image")) == 2
    beside = check_dataset(part.open(), part, others=[replace(harbour, name="rest").open()])
    assert found(beside, "labels without image") == []


def test_the_same_image_in_two_splits(harbour: DatasetSpec) -> None:
    root = Path(harbour.root)
    (root / "more").mkdir()
    shutil.copy(root / "images/3.png", root / "more/other name.png")
    other = replace(harbour, name="harbour_val", images="more/*.png", labels=None)
    report = check(harbour)
    for across in (
        duplicates_across([report], [other.open()], unseen),
        duplicates_across([report, check(other)], [], unseen),
    ):
        (finding,) = across
        assert "images/3.png (harbour) and" in finding.text
        assert "other name.png (harbour_val) are the same image" in finding.text


def test_drawn_streets_can_be_checked() -> None:
    spec = replace(DATASETS.get("streets_hazy_val"), num_images=3)  # type: ignore[type-var]
    report = check(spec)
    assert not report.fatal
    assert report.sizes == {(256, 512): 3}


def test_a_set_that_is_not_there(harbour: DatasetSpec) -> None:
    with pytest.raises(MissingFileError):
        check(replace(harbour, root="nowhere"))


def test_no_advice_would_delete_the_only_copy(harbour: DatasetSpec) -> None:
    root = Path(harbour.root)
    (root / "images/1.png").unlink()
    (root / "images/1.png").symlink_to(root / "images/0.png")
    (root / "images/2.png").unlink()
    (root / "images/2.png").hardlink_to(root / "images/0.png")
    (root / "list.txt").write_text("3\n4\n3\n")
    report = check(harbour)
    texts = found(report, "images under two names")
    assert [("1.png" in text, "2.png" in text) for text in texts] == [(True, False), (False, True)]
    listed = check(replace(harbour, images="images/{stem}.png", stems="list.txt"))
    (text,) = found(listed, "images that are listed twice")
    assert "images/3.png is listed more than once" in text
    other = replace(harbour, name="harbour_val", images="images/*.png", labels=None)
    across = [finding.text for finding in duplicates_across([listed], [other.open()], unseen)]
    assert len(across) == 2
    assert all("leave it out of the pattern or list" in text for text in across)
    assert "remove" not in " ".join([*texts, text, *across])
