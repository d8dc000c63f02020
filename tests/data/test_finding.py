"""Which files are a dataset's images: folders, lists, endings in any case, links, hidden files."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.data.catalog import DatasetSpec
from t2sda.data.check import check_dataset
from t2sda.data.dataset_files import read_dataset_file
from t2sda.errors import MissingFileError, UserError


def names(spec: DatasetSpec) -> list[str]:
    """Of the images, below images/."""
    images = spec.find_root() / "images"
    return [str(path.relative_to(images)) for path, _ in spec.open().pairs]


@pytest.fixture
def mixed(harbour: DatasetSpec) -> DatasetSpec:
    """0.png 1.PNG 2.jpg 3.JPEG and city/4.png."""
    images = Path(harbour.root) / "images"
    (images / "1.png").rename(images / "1.PNG")
    for old, new in (("2.png", "2.jpg"), ("3.png", "3.JPEG")):
        Image.open(images / old).save(images / new)
        (images / old).unlink()
    (images / "city").mkdir()
    (images / "4.png").rename(images / "city/4.png")
    return harbour


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("images", ["0.png", "1.PNG", "2.jpg", "3.JPEG", "city/4.png"]),
        ("./images/", ["0.png", "1.PNG", "2.jpg", "3.JPEG", "city/4.png"]),
        ("images/city", ["city/4.png"]),
        ("images/*.png", ["0.png", "1.PNG"]),
        ("images/*.{PNG,jpg}", ["0.png", "1.PNG", "2.jpg"]),
        ("images/{*,city/*}.png", ["0.png", "1.PNG", "city/4.png"]),
        (("images/city", "images/*.jp*g", "images/*.jpg"), ["2.jpg", "3.JPEG", "city/4.png"]),
        ("images/*", ["0.png", "1.PNG", "2.jpg", "3.JPEG"]),
        ("images/1.PNG", ["1.PNG"]),
        ("images/*.*", ["0.png", "1.PNG", "2.jpg", "3.JPEG"]),
    ],
)
def test_folders_lists_alternatives_and_endings(
    mixed: DatasetSpec, images: str | tuple[str, ...], expected: list[str]
) -> None:
    spec = dataclasses.replace(mixed, images=images)
    assert names(spec) == expected
    assert spec.open().load(len(expected) - 1).label is not None


def test_a_list_in_a_dataset_file(mixed: DatasetSpec, tmp_path: Path) -> None:
    text = "name: h\nroot: harbour\nimages: [images/city, 'images/*.{split}']\nsplits: [png, jpg]\n"
    (tmp_path / "h.yaml").write_text(text)
    first, second = read_dataset_file(tmp_path / "h.yaml")
    assert names(first) == ["0.png", "1.PNG", "city/4.png"]
    assert names(second) == ["2.jpg", "city/4.png"]
    for wrong in ("[]", "[1]", "{a: b}", "['']"):
        (tmp_path / "h.yaml").write_text(f"name: h\nroot: harbour\nimages: {wrong}\n")
        with pytest.raises(UserError, match="images"):
            read_dataset_file(tmp_path / "h.yaml")


def test_stems_with_several_endings(mixed: DatasetSpec) -> None:
    (Path(mixed.root) / "list.txt").write_text("0\n2\n9\n")
    listed = dataclasses.replace(mixed, images="images/{stem}.{png,jpg}", stems="list.txt")
    assert names(listed) == ["0.png", "2.jpg", "9.png"]


def test_linked_folders_are_followed_and_circles_left(harbour: DatasetSpec, tmp_path: Path) -> None:
    images = Path(harbour.root) / "images"
    shutil.move(images / "4.png", tmp_path / "nas.png")
    (tmp_path / "nas").mkdir()
    shutil.move(tmp_path / "nas.png", tmp_path / "nas/4.png")
    (images / "linked").symlink_to(tmp_path / "nas")
    (images / "circle").symlink_to(images)
    for pattern in ("images", "images/**/*.png"):
        spec = dataclasses.replace(harbour, images=pattern)
        assert names(spec) == ["0.png", "1.png", "2.png", "3.png", "linked/4.png"]
    assert names(dataclasses.replace(harbour, images="images/*/4.png")) == ["linked/4.png"]


def test_what_is_passed_over_is_counted_and_shown(
    harbour: DatasetSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(harbour.root) / "images"
    for folder in (images, Path(harbour.root) / "labels"):
        (folder / "._0.png").write_bytes(b"\0\5\26\7")
    (images / ".thumbnails").mkdir()
    (images / "5.png").mkdir()
    (images / "notes.txt").touch()
    assert harbour.open().passed_over == {"hidden files": 1, "folders named like files": 1}
    report = check_dataset(harbour.open(), harbour)
    assert report.findings == []
    (tmp_path / "h.yaml").write_text("name: h\nroot: harbour\nimages: images\n")
    assert main(["data", "check", str(tmp_path / "h.yaml"), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "5 images" in shown
    assert (
        "passed over: folders named like files: 1, hidden files: 1, hidden folders: 1, "
        "other files: 1" in shown
    )
    assert names(dataclasses.replace(harbour, images="images/._*.png")) == ["._0.png"]


def test_nothing_but_hidden_files(harbour: DatasetSpec) -> None:
    folder = Path(harbour.root) / "only"
    folder.mkdir()
    (folder / "._0.png").touch()
    with pytest.raises(MissingFileError, match=r"only.*\(passed over: hidden files: 1\); check"):
        dataclasses.replace(harbour, images="only/*.png").open()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("../elsewhere/*.png", "leaves `root`"),
        ("images/../../*.png", "leaves `root`"),
        ((), "is an empty list"),
        ("images/" + "{a,b}" * 11 + ".png", "stands for 2048 patterns"),
        (("images/*.png", "images/{stem}.png"), "exactly when `stems`"),
    ],
)
def test_patterns_that_cannot_work(
    harbour: DatasetSpec, images: str | tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(harbour, images=images)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed(harbour: DatasetSpec) -> None:
    images = Path(harbour.root) / "images"
    images.chmod(0)
    try:
        with pytest.raises(UserError, match="images: cannot be listed"):
            harbour.open()
    finally:
        images.chmod(0o755)
