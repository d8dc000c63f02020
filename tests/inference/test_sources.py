"""Files, folders and patterns, and the names of what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2sda.errors import MissingFileError, UserError
from t2sda.inference.sources import find_pictures


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(source: object, output_dir: Path) -> dict[str, str]:
    """Name -> file name, in order."""
    pictures = find_pictures(str(source), output_dir)
    return {str(picture.name): picture.path.name for picture in pictures}


def test_folder_with_sub_folders(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    touch(photos / "b.JPG", photos / "a.png", photos / "notes.txt", photos / "bonn/a.webp")
    assert found(photos, tmp_path / "out") == {
        "a": "a.png",
        "b": "b.JPG",
        "bonn/a": "a.webp",
    }


def test_any_file_that_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "frame.raw")
    assert found(tmp_path / "frame.raw", tmp_path / "out") == {"frame": "frame.raw"}


def test_pattern(tmp_path: Path) -> None:
    touch(tmp_path / "x/a.png", tmp_path / "y/a.png", tmp_path / "y/b.jpg")
    (tmp_path / "y/folder.png").mkdir()
    out = tmp_path / "out"
    assert found(tmp_path / "*/*.png", out) == {"x/a": "a.png", "y/a": "a.png"}
    assert found(tmp_path / "y/*.png", out) == {"a": "a.png"}
    assert found(tmp_path / "**/*.jpg", out) == {"b": "b.jpg"}


def test_equal_stems_do_not_share_a_name(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "A.jpg", tmp_path / "a.png.bmp", tmp_path / "sub/b.png")
    assert found(tmp_path, tmp_path / "out") == {
        "A.jpg": "A.jpg",
        "a.png": "a.png",
        "a.png.bmp": "a.png.bmp",
        "sub/b": "b.png",
    }


def test_results_inside_the_folder_are_not_taken_for_pictures(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "results/a_overlay.png")
    assert found(tmp_path, tmp_path / "results") == {"a": "a.png"}


def test_results_of_a_pattern_are_not_taken_for_pictures(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "sub/b.png", tmp_path / "results/a_overlay.png")
    assert found(tmp_path / "**/*.png", tmp_path / "results") == {"a": "a.png", "sub/b": "b.png"}


def test_output_above_the_folder_hides_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "photos/a.png")
    assert found(tmp_path / "photos", tmp_path) == {"a": "a.png"}
    assert found(tmp_path / "photos/*.png", tmp_path) == {"a": "a.png"}


def test_results_among_the_pictures_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    with pytest.raises(UserError, match="results would lie among the pictures"):
        find_pictures(str(tmp_path), tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    out = tmp_path / "out"
    with pytest.raises(MissingFileError, match=r"no picture in this folder \(looked for \.avi"):
        find_pictures(str(tmp_path), out)
    with pytest.raises(MissingFileError, match=r"\*\.png: no file matches this pattern"):
        find_pictures(str(tmp_path / "*.png"), out)
    with pytest.raises(MissingFileError, match=r"a\.png: no such file"):
        find_pictures(str(tmp_path / "a.png"), out)
