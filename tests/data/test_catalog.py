"""Datasets by name: where they are looked for, and what is said when they are not there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from t2sda.data.catalog import DATASETS, DatasetSpec, open_dataset, register_dataset
from t2sda.data.check import check_dataset
from t2sda.errors import MissingFileError, UserError
from t2sda.registry import UnknownNameError


def test_opens_images_with_their_labels(harbour: DatasetSpec) -> None:
    dataset = harbour.open()
    sample = dataset.load(2)
    assert len(dataset) == 5
    assert dataset.labelled
    assert sample.image.shape == (40, 60, 3)
    assert sample.label is not None
    assert sample.label.shape == (40, 60)


def test_relative_root_is_found_below_the_variable(
    harbour: DatasetSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("T2SDA_DATASETS", f"{tmp_path / 'nowhere'}:{tmp_path}")
    assert len(dataclasses.replace(harbour, root="harbour").open()) == 5


def test_missing_folder_names_the_places_and_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("T2SDA_DATASETS", str(tmp_path))
    with pytest.raises(MissingFileError, match="source_procgen.* set T2SDA_DATASETS to the folder"):
        open_dataset("rendered_train")


def test_pattern_that_matches_nothing_is_named(harbour: DatasetSpec) -> None:
    with pytest.raises(MissingFileError, match=r"no file matches .*harbour/images/\*\.jpg"):
        dataclasses.replace(harbour, images="images/*.jpg").open()


def test_list_file_chooses_the_images(harbour: DatasetSpec) -> None:
    (Path(harbour.root) / "some.txt").write_text("3\n1\n")
    spec = dataclasses.replace(harbour, images="images/{stem}.png", stems="some.txt")
    assert [Path(spec.open().load(i).name).stem for i in range(2)] == ["3", "1"]


def test_a_list_file_written_on_windows(harbour: DatasetSpec) -> None:
    (Path(harbour.root) / "some.txt").write_bytes(b"\xef\xbb\xbf3\r\n1\r\n")
    spec = dataclasses.replace(harbour, images="images/{stem}.png", stems="some.txt")
    assert [Path(spec.open().load(i).name).stem for i in range(2)] == ["3", "1"]
    (Path(harbour.root) / "some.txt").write_bytes("3\r\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"some\.txt is not UTF-8"):
        spec.open()


def test_a_line_of_a_list_may_hold_folders(harbour: DatasetSpec) -> None:
    root = Path(harbour.root)
    (root / "images/quay").mkdir()
    (root / "images/2.png").rename(root / "images/quay/2.png")
    (root / "some.txt").write_text("quay/2\n1\n1\n")  # an image twice: drawn twice as often
    spec = dataclasses.replace(harbour, images="images/{stem}.png", stems="some.txt")
    labels = [str(label) for _, label in spec.open().pairs]
    assert labels == [f"{root}/labels/{name}.png" for name in ("quay/2", "1", "1")]


def test_images_that_would_share_a_label_are_refused(harbour: DatasetSpec) -> None:
    root = Path(harbour.root)
    (root / "images/quay").mkdir()
    (root / "images/2.png").rename(root / "images/quay/2.png")
    spec = dataclasses.replace(harbour, images="images/**/*.png")
    assert len(spec.open()) == 5
    (root / "images/quay/1.png").write_bytes((root / "images/1.png").read_bytes())
    with pytest.raises(UserError, match=r"images/1\.png and .*quay/1\.png would share .*labels/1"):
        spec.open()
    assert len(dataclasses.replace(spec, labels=None).open()) == 6
    assert len(dataclasses.replace(spec, labels="labels/{1}/{2}.png").open()) == 6


@pytest.mark.parametrize("images", ["./images/*.png", "images//*.png"])
def test_patterns_may_hold_what_changes_nothing(harbour: DatasetSpec, images: str) -> None:
    assert dataclasses.replace(harbour, images=images).open().pairs == harbour.open().pairs


def test_missing_list_file_is_named(harbour: DatasetSpec) -> None:
    spec = dataclasses.replace(harbour, images="images/{stem}.png", stems="none.txt")
    with pytest.raises(MissingFileError, match=r"list file .*none\.txt is missing"):
        spec.open()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "images/{stem}.png"}, "exactly when `stems` names"),
        ({"labels": "labels/all.png"}, "share one label"),
        ({"images": "/data/images/*.png"}, "is absolute; name the folder in `root`"),
        ({"labels": "/data/labels/{stem}.png"}, "is absolute"),
        ({"images": "images/a**/*.png"}, "must be alone between two /"),
        ({"name": "../harbour"}, "a name has no /"),
    ],
)
def test_patterns_that_cannot_work_are_refused(
    harbour: DatasetSpec, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(harbour, **changes)  # type: ignore[arg-type]


def test_unknown_name_lists_the_nearest_first() -> None:
    with pytest.raises(UnknownNameError, match="nearest first: streets_clear_train"):
        open_dataset("street_clear_train")


def test_a_name_is_registered_once(harbour: DatasetSpec) -> None:
    register_dataset(dataclasses.replace(harbour, name="harbour_twice"))
    try:
        with pytest.raises(ValueError, match="registered already"):
            register_dataset(dataclasses.replace(harbour, name="harbour_twice"))
    finally:
        DATASETS._components.pop("harbour_twice")


def moved_into(folder: Path, names: tuple[str, ...], inner: str) -> None:
    """As an archive unpacked into a folder of its own name leaves them."""
    (folder / inner).mkdir()
    for name in names:
        (folder / name).rename(folder / inner / name)


def test_a_set_unpacked_one_folder_deeper_is_found(harbour: DatasetSpec) -> None:
    root = Path(harbour.root)
    moved_into(root, ("images", "labels"), "harbour_v1")
    (root / "__MACOSX").mkdir()
    assert harbour.location == str(root / "harbour_v1")
    assert harbour.open().load(0).label is not None
    assert not check_dataset(harbour.open(), harbour).fatal


def test_labels_unpacked_into_another_folder_are_found(harbour: DatasetSpec) -> None:
    root = Path(harbour.root)
    moved_into(root, ("images",), "images_trainval")
    moved_into(root, ("labels",), "labels_trainval")
    image, label = harbour.open().pairs[0]
    assert image == root / "images_trainval/images/0.png"
    assert label == root / "labels_trainval/labels/0.png"
    (root / "labels_trainval/labels/extra.png").write_bytes(b"")
    findings = check_dataset(harbour.open(), harbour).findings
    assert "labels without image" in {found.kind for found in findings}


def test_two_folders_that_hold_the_images_are_named(harbour: DatasetSpec) -> None:
    root = Path(harbour.root)
    moved_into(root, ("images",), "a")
    (root / "b/images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"images/ is not in .*harbour, but in .*/a and in .*/b;"):
        harbour.open()


def test_what_a_folder_without_the_images_holds_is_said(harbour: DatasetSpec) -> None:
    spec = dataclasses.replace(harbour, images="*.png", labels=None)
    with pytest.raises(MissingFileError, match="check the folder, which holds images/, labels/"):
        spec.open()


def test_neighbours_of_a_file_that_describes_its_own_folder_are_not_taken(
    harbour: DatasetSpec, tmp_path: Path
) -> None:
    spec = dataclasses.replace(harbour, root=".", beside=str(tmp_path))
    with pytest.raises(MissingFileError, match="no file matches"):  # harbour/images is not its own
        spec.open()
