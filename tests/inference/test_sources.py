"""Files, folders and patterns, and the names of what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t2sda.errors import MissingFileError, UserError
from t2sda.inference.sources import find_all_sources, find_sources, read_list


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(source: object, output_dir: Path) -> dict[str, str]:
    """Name -> file name, in order."""
    images = find_sources(str(source), output_dir).sources
    return {str(image.name): image.path.name for image in images}


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
    assert found(tmp_path / "**/*.jpg", out) == {"y/b": "b.jpg"}


def test_equal_stems_do_not_share_a_name(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "A.jpg", tmp_path / "a.png.bmp", tmp_path / "sub/b.png")
    assert found(tmp_path, tmp_path / "out") == {
        "A.jpg": "A.jpg",
        "a.png": "a.png",
        "a.png.bmp": "a.png.bmp",
        "sub/b": "b.png",
    }


def test_results_inside_the_folder_are_not_taken_for_images(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "results/a_overlay.png")
    assert found(tmp_path, tmp_path / "results") == {"a": "a.png"}


def test_results_of_a_pattern_are_not_taken_for_images(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "sub/b.png", tmp_path / "results/a_overlay.png")
    assert found(tmp_path / "**/*.png", tmp_path / "results") == {"a": "a.png", "sub/b": "b.png"}


def test_output_above_the_folder_hides_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "photos/a.png")
    assert found(tmp_path / "photos", tmp_path) == {"a": "a.png"}
    assert found(tmp_path / "photos/*.png", tmp_path) == {"a": "a.png"}


def test_results_among_the_images_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    with pytest.raises(UserError, match="results would lie among the images"):
        find_sources(str(tmp_path), tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    out = tmp_path / "out"
    with pytest.raises(
        MissingFileError, match=r"no image or video in this folder \(passed over: other files: 1\)"
    ):
        find_sources(str(tmp_path), out)
    with pytest.raises(MissingFileError, match=r"\*\.png: no file matches"):
        find_sources(str(tmp_path / "*.png"), out)
    with pytest.raises(MissingFileError, match=r"a\.png: no such file"):
        find_sources(str(tmp_path / "a.png"), out)


def passed_over(source: object, output_dir: Path) -> dict[str, int]:
    return dict(find_sources(str(source), output_dir).passed_over)


def test_a_further_image_renames_no_result(tmp_path: Path) -> None:
    touch(tmp_path / "in/x/a.png", tmp_path / "in/x/b.jpg")
    pattern, out = tmp_path / "in/*/*.*", tmp_path / "out"
    before = found(pattern, out)
    assert before == {"x/a": "a.png", "x/b": "b.jpg"}
    touch(tmp_path / "in/y/a.png", tmp_path / "in/x/c.png", tmp_path / "in/x/b.png.bmp")
    after = found(pattern, out)
    assert before.items() <= after.items()
    touch(tmp_path / "in/x/a.jpg")  # no result of both can be called x/a
    assert found(pattern, out) == {
        **{name: file for name, file in after.items() if name != "x/a"},
        "x/a.png": "a.png",
        "x/a.jpg": "a.jpg",
    }


def test_no_two_names_are_one(tmp_path: Path) -> None:
    for name in ("a", "a.png", "a.jpg", "a.png.jpg", "A.PNG.bmp", "b.png", "b.png.png", "c.png"):
        touch(tmp_path / "in" / name)
    names = list(found(tmp_path / "in/*", tmp_path / "out"))
    assert len(names) == len({name.casefold() for name in names}) == 7  # "a" has no ending
    assert "c" in names


def test_alternatives_and_endings_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path / "a.JPG", tmp_path / "b.png", tmp_path / "c.jpeg", tmp_path / "d.txt")
    pattern = tmp_path / "*.{jpg,png}"
    assert found(pattern, tmp_path / "out") == {"a": "a.JPG", "b": "b.png"}


def test_linked_folders_are_searched_and_circles_left(tmp_path: Path) -> None:
    touch(tmp_path / "nas/b.png", tmp_path / "in/a.png")
    (tmp_path / "in/linked").symlink_to(tmp_path / "nas")
    (tmp_path / "nas/back").symlink_to(tmp_path / "in")
    (tmp_path / "in/self").symlink_to(tmp_path / "in")
    expected = {"a": "a.png", "linked/b": "b.png"}
    for source in (tmp_path / "in", tmp_path / "in/**/*.png"):
        assert found(source, tmp_path / "out") == expected


def test_hidden_files_folders_and_other_files_are_counted(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png", tmp_path / "in/._a.png", tmp_path / "in/.thumbnails/a.png")
    touch(tmp_path / "in/notes.txt", tmp_path / "in/b.png/c.jpg")
    out = tmp_path / "out"
    assert found(tmp_path / "in", out) == {"a": "a.png", "b.png/c": "c.jpg"}
    assert passed_over(tmp_path / "in", out) == {
        "hidden files": 1,
        "hidden folders": 1,
        "folders named like files": 1,
        "other files": 1,
    }
    assert passed_over(tmp_path / "in/*.png", out) == {
        "hidden files": 1,
        "folders named like files": 1,
    }
    assert found(tmp_path / "in/.thumbnails/*.png", out) == {"a": "a.png"}
    assert found(tmp_path / "in/._*.png", out) == {"._a": "._a.png"}


def test_a_pattern_does_not_take_results_of_any_run(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "sub/c.png")
    out = tmp_path / "elsewhere"
    for folder in (tmp_path, tmp_path / "results"):  # of earlier runs, one among the images
        touch(folder / "a_overlay.png", folder / "sub/c_trainid.png", folder / "legend.png")
        names = [{"settings": {}}, *({"name": name, "pixels": []} for name in ("a", "sub/c"))]
        (folder / "images.jsonl").write_text("".join(json.dumps(n) + "\n" for n in names))
    expected = {"a": "a.png", "b": "b.png", "sub/c": "c.png"}
    assert found(tmp_path / "**/*.png", out) == expected
    assert passed_over(tmp_path / "**/*.png", out) == {"results of earlier runs": 6}


def test_no_name_leads_out_of_the_output_folder(tmp_path: Path) -> None:
    touch(tmp_path / "in/x/a.png", tmp_path / "beside/b.png")
    with pytest.raises(UserError, match=r"'\.\.' stands behind a wildcard"):
        find_sources(str(tmp_path / "in/*/../../beside/*.png"), tmp_path / "out")
    assert found(tmp_path / "in/../beside/*.png", tmp_path / "out") == {"b": "b.png"}


def test_a_name_too_long_for_its_results_is_shortened(tmp_path: Path) -> None:
    long = "ä" * 120  # 240 bytes
    touch(*(tmp_path / "in" / f"{long}{letter}.png" for letter in "ab"), tmp_path / "in/c.png")
    names = [image.name for image in find_sources(str(tmp_path / "in"), tmp_path).sources]
    assert names[0] == Path("c")
    assert len(set(names)) == 3
    for name in names:
        (tmp_path / f"{name}_probabilities.npy.partial-0123456789").touch()


@pytest.mark.parametrize(
    ("name", "start", "is_video"),
    [
        ("a.avif", b"\0\0\0\x20ftypavif", False),
        ("b.jfif", b"\xff\xd8\xff\xe0", False),
        ("c", b"GIF89a", False),
        ("d.dat", b"\x89PNG\r\n\x1a\n", False),
        ("e.webp", b"RIFF\0\0\0\0WEBP", False),
        ("f.3gp", b"\0\0\0\x14ftyp3gp4", True),
        ("g.flv", b"FLV\x01", True),
        ("h.ts", (b"G" + bytes(187)) * 5, True),
        ("i.m2ts", (bytes(4) + b"G" + bytes(187)) * 5, True),
        ("j.jpg", b"\0\0\0\x14ftypisom", True),  # whatever it is called
        ("k.mp4", b"\xff\xd8\xff\xe0", False),
    ],
)
def test_images_and_videos_are_told_by_their_content(
    tmp_path: Path, name: str, start: bytes, is_video: bool
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(start)
    for source in (tmp_path / "in", tmp_path / "in" / name):
        (image,) = find_sources(str(source), tmp_path / "out").sources
        assert image.is_video == is_video


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.ts", b"const answer: number = 42;\n" * 50),
        ("b.mp3", b"ID3"),
        ("c.m4a", b"\0\0\0 ftypM4A "),
    ],
)
def test_what_is_neither_is_passed_over(tmp_path: Path, name: str, start: bytes) -> None:
    touch(tmp_path / "in/x.png")
    (tmp_path / "in" / name).write_bytes(start)
    assert found(tmp_path / "in", tmp_path / "out") == {"x": "x.png"}
    assert passed_over(tmp_path / "in", tmp_path / "out") == {"other files": 1}


def found_all(inputs: list[Path], output_dir: Path) -> dict[str, str]:
    images = find_all_sources([str(path) for path in inputs], output_dir).sources
    return {str(image.name): image.path.name for image in images}


def test_several_inputs_are_called_by_their_path_below_the_common_folder(tmp_path: Path) -> None:
    touch(tmp_path / "x/a.png", tmp_path / "y/a.png", tmp_path / "y/b.jpg", tmp_path / "y/b.png")
    out = tmp_path / "out"
    assert found_all([tmp_path / "y/b.jpg", tmp_path / "y/a.png"], out) == {
        "b": "b.jpg",
        "a": "a.png",
    }
    assert found_all([tmp_path / "y/b.jpg", tmp_path / "x", tmp_path / "y/*.png"], out) == {
        "y/b.jpg": "b.jpg",
        "x/a": "a.png",
        "y/a": "a.png",
        "y/b.png": "b.png",
    }


def test_what_two_inputs_name_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.png")
    monkeypatch.chdir(tmp_path)
    inputs = [Path("b.png"), tmp_path, Path("../", tmp_path.name, "a.png")]
    assert list(found_all(inputs, tmp_path / "out")) == ["b", "a"]


def test_one_of_several_inputs_is_missing(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    with pytest.raises(MissingFileError, match=r"gone\.png: no such file"):
        found_all([tmp_path / "a.png", tmp_path / "gone.png"], tmp_path / "out")


def test_a_list_has_an_input_a_line() -> None:
    text = "a b.png\r\n\n  \nphotos/*.jpg\nü.png"
    assert read_list(text.encode(), "list") == ["a b.png", "photos/*.jpg", "ü.png"]
    with pytest.raises(MissingFileError, match="list: names no file; one path a line is due"):
        read_list(b"\n \n", "list")
