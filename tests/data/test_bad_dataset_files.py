"""Datasets as YAML files that cannot be used: what is said of them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from t2sda.data.dataset_files import read_dataset_file, register_dataset_files
from t2sda.errors import MissingFileError, UserError
from tests.data.layouts import halves, write_ids, write_image
from tests.data.test_dataset_files import WHOLE, dataset_file, first_label

pytestmark = pytest.mark.usefixtures("registry_of_its_own")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("labls: x", r"harbour.yaml:7: labls: unknown key; nearest known: labels"),
        ("name: again", "name: duplicate key"),
        ("ids: {road: 7, car: 7, quay: 8}", "ids: 7 stands for both 'road' and 'car'"),
        ("ids: {road: 7, car: 8}", "ids: nothing for class 'quay'"),
        ("ids: {road: 7, car: 8, key: 9}", "ids: no class 'key'; nearest: quay"),
        ("ids: {road: 7, car: many, quay: 8}", "ids: found 'many'; must be an id"),
        ("ids: {road: 7, car: 70000, quay: 8}", "raw ids \\[70000\\] cannot be in a label"),
        ("ignored: [1]", "ignored: 1 stands for 'car' and is ignored; choose one"),
        ("label_format: colors", "there is no `palette`: give the color of every class"),
        (
            "label_format: colors\npalette: [[0, 0, 0], [1, 1, 1], [0, 0, 0]]",
            r"palette: \[0, 0, 0\] stands for two classes",
        ),
        ("palette: [[0, 0, 0]]", "1 colors for 3 classes"),
        ("palette: [[0, 0, 0], [1, 1, 1], [0, 0, 256]]", "a color is \\[R, G, B\\]"),
        ("label_format: idss", "no label_format 'idss'; known, nearest first: ids"),
        ("taxonomy: cityscapes_19", "classes: has no effect beside `taxonomy`"),
        ("splits: [train]", "neither `images` nor `stems` has {split}"),
        ("groups: {land: [road, quay]}", "groups: 'car' must be in exactly one group"),
        ("ids: {road: 9-7, car: 1, quay: 2}", "ids: found 9-7; a range is FIRST-LAST"),
        ("ids: {road: 0-70000, car: 1, quay: 2}", "its ids are 0 to 65535"),
        ("ids: {road: 0-9, car: 9, quay: 10}", "ids: 9 stands for both 'road' and 'car'"),
        ("ignored: [0-65535, 0-65535]", "ignored: more than the 65536 ids"),
        ("others: quai", "others: no class 'quai'; nearest: quay"),
        ("colors: {road: [0, 0, 0]}", "colors: has no effect without label_format colors; use"),
        (
            "label_format: colors\ncolors: {road: [0, 0, 0], car: [1, 1, 1]}",
            "colors: nothing for class 'quay'",
        ),
        (
            "label_format: colors\ncolors: {road: [0, 0, 0], car: [1, 1, 1], quay: []}",
            r"colors: found \[\]; a color is \[R, G, B\]",
        ),
        (
            "label_format: colors\nids: {road: 0, car: 1, quay: 2}",
            "ids: has no effect with label_format colors; use `colors`",
        ),
        ("unlabelled: [test]", "unlabelled: has no effect without `splits`"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, change: str, message: str) -> None:
    path = dataset_file(tmp_path, WHOLE + change + "\n")
    with pytest.raises(UserError, match=message):
        read_dataset_file(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("name: harbour\n", "", "`name` is missing"),
        ("[road, car, quay]", "[road, car, road]", "'road' is there twice"),
        ("[road, car, quay]", "[road]", "found 1 classes; 2 to 255"),
        ("[road, car, quay]", "[road, 7, car]", "found 7; must be text: write it in quotes"),
        ("classes: [road, car, quay]", "", "`labels` without `classes`"),
        ("images/*.png", "*/a.png", "needs quotes"),
        ("root: harbour", "root: !!python/object:os.system x", "is refused"),
        (WHOLE, "- a list", "it holds `key: value` lines"),
        ("labels/{stem}.png", "labels/a.png", "share one label"),
        (
            "images/*.png",
            "images/{split}/*.png\nsplits: [train, test]\nunlabelled: [tests]",
            "unlabelled: no split 'tests'; nearest: test",
        ),
    ],
)
def test_contents_that_are_refused(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = dataset_file(tmp_path, WHOLE.replace(before, after))
    with pytest.raises(UserError, match=message):
        read_dataset_file(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.yaml: no such dataset file"):
        register_dataset_files([str(tmp_path / "none.yaml")])


def test_255_classes_are_read_and_256_refused(tmp_path: Path) -> None:
    names = [f"class{index}" for index in range(256)]
    write_image(tmp_path / "harbour/images/a.png")
    write_ids(tmp_path / "harbour/labels/a.png", halves(254, 255))
    text = WHOLE.replace("[road, car, quay]", f"[{', '.join(names[:255])}]")
    assert first_label(tmp_path, text) == [254, 255]
    with pytest.raises(UserError, match="found 256 classes; 2 to 255"):
        read_dataset_file(dataset_file(tmp_path, text.replace("class0,", "class0, class255,")))


def test_rgb_where_ids_are_due_names_both_ways_out(tmp_path: Path) -> None:
    write_image(tmp_path / "harbour/images/a.png")
    Image.new("RGB", (12, 8)).save(tmp_path / "a.png")
    (tmp_path / "harbour/labels").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "harbour/labels/a.png")
    (spec,) = read_dataset_file(dataset_file(tmp_path, WHOLE))
    message = r"labels/a\.png: a label has one channel of class ids.*`label_format`.*red, green"
    with pytest.raises(UserError, match=message):
        spec.open().load(0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("images/{stem}_{city}.png", r"has {city}, but a list file gives only {stem}"),
        ("images/{stem}{0}.png", r"has {0}, but a list file"),
        ("images/{stem}{}.png", r"has {}, but a list file"),
        ("images/{stem}{stem:>300}.png", r"has {stem:>300}; write {stem}"),
        ("images/{stem}{stem:{width}}.png", r"has {stem:{width}}; write"),
        ("images/{stem}{stem!r}.png", r"has {stem!r}; write"),
        ("images/{stem}{stem.__class__}.png", r"has {stem.__class__}, but"),
        ("images/{stem}{stem[0]}.png", "has {stem[0]}, but"),
        ("images/{stem}{.png", "unbalanced braces"),
        ("images/{stem}\0.png", "holds a NUL character"),
    ],
)
def test_a_list_file_fills_in_the_stem_and_nothing_else(
    tmp_path: Path, images: str, message: str
) -> None:
    text = WHOLE.replace("images: images/*.png", f"images: {json.dumps(images)}\nstems: list.txt")
    with pytest.raises(UserError, match=re.escape(message)):
        read_dataset_file(dataset_file(tmp_path, text))


@pytest.mark.parametrize("labels", ["./", ".", "/{stem}", "../{stem}.png"])
def test_a_pattern_without_a_file_name_is_refused(tmp_path: Path, labels: str) -> None:
    text = WHOLE.replace("labels: labels/{stem}.png", f"labels: {labels!r}")
    with pytest.raises(UserError, match="names no file|is absolute|leaves|share one label"):
        read_dataset_file(dataset_file(tmp_path, text))


@pytest.mark.parametrize("key", ["images", "labels", "stems", "root"])
@pytest.mark.parametrize(
    "name", ["~nosuchuser/x", "a" * 300, "a/" * 3000 + "x", "[", "[!]", "[z-a]"]
)
def test_names_that_no_file_has_find_nothing(tmp_path: Path, key: str, name: str) -> None:
    values = {"images": "images/*.png", "labels": "labels/{stem}.png", "root": "harbour"}
    values[key] = name + "/{stem}" if key == "labels" else name
    if key == "stems":
        values["images"] = "images/{stem}.png"
    lines = [f"{item}: {json.dumps(value)}\n" for item, value in values.items()]
    write_image(tmp_path / "harbour/images/a.png")
    path = dataset_file(tmp_path, "name: harbour\nclasses: [a, b]\n" + "".join(lines))
    with pytest.raises(UserError):
        read_dataset_file(path)[0].open().load(0)


@pytest.mark.parametrize("special", ["pipe", "folder", "/dev/zero"])
def test_a_dataset_file_or_list_that_is_no_file_is_not_read(tmp_path: Path, special: str) -> None:
    path = tmp_path / "harbour" / "x"
    path.parent.mkdir()
    if special == "pipe":
        os.mkfifo(path)
    elif special == "folder":
        path.mkdir()
    else:
        path.symlink_to(special)
    with pytest.raises(UserError, match="not a file"):
        read_dataset_file(path)
    text = WHOLE.replace("images: images/*.png", "images: '{stem}.png'\nstems: x")
    (spec,) = read_dataset_file(dataset_file(tmp_path, text))
    with pytest.raises(UserError, match="not a file"):
        spec.open()


@pytest.mark.parametrize("content", [b"a\0b\n", b"\xff\n", b"\xff\xfea\0\n\0"])
def test_a_list_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "harbour").mkdir()
    (tmp_path / "harbour/l.txt").write_bytes(content)
    text = WHOLE.replace("images: images/*.png", "images: '{stem}.png'\nstems: l.txt")
    (spec,) = read_dataset_file(dataset_file(tmp_path, text))
    with pytest.raises(UserError, match="UTF-8|NUL"):
        spec.open()


def test_a_list_of_100_000_names_is_refused_in_seconds(tmp_path: Path) -> None:
    names = ", ".join(f"c{number}" for number in range(50_000))
    text = WHOLE.replace("[road, car, quay]", f"[{names}]")
    with pytest.raises(UserError, match="50000 classes; 2 to 255"):
        read_dataset_file(dataset_file(tmp_path, text))
