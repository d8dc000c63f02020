"""From an image's path to its label's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2sda.data.patterns import check_label_pattern
from t2sda.errors import UserError
from t2sda.images.finding import fixed_folder, wildcards_of


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("images/*.png", "images/a b.png", ("a b",)),
        ("x/*/*_left.png", "x/aachen/aachen_0_left.png", ("aachen", "aachen_0")),
        ("**/*.jpg", "a/b/c.jpg", ("a/b", "c")),
        ("**/*.jpg", "c.jpg", ("", "c")),
        ("img?.png", "img7.png", ("7",)),
        ("[ab]/*.png", "b/c.png", ("b", "c")),
        ("images.v1/*.png", "images.v1/x.png", ("x",)),
    ],
)
def test_what_wildcards_stand_for(pattern: str, path: str, expected: tuple[str, ...]) -> None:
    assert wildcards_of(pattern, path) == expected


NAMES = st.text(
    st.characters(exclude_characters="/\0\n", exclude_categories=("Cs",)), min_size=1
).filter(lambda name: name not in (".", ".."))


@given(city=NAMES, frame=NAMES)
def test_any_name_comes_back(city: str, frame: str) -> None:
    path = f"left/{city}/{frame}_left.png"
    assert wildcards_of("left/*/*_left.png", path) == (city, frame)


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [("images/*.png", "images"), ("*.png", "."), ("a/b*/c.png", "a"), ("a/{stem}.png", "a")],
)
def test_the_folder_before_the_first_wildcard(pattern: str, folder: str) -> None:
    assert str(fixed_folder(pattern)) == folder


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("labels/all.png", "no {stem} and no {1}, so all images would share one label"),
        ("labels/{2}.png", "has {2}, but images='images/*.png' gives only {stem}, {1}"),
        ("labels/{name}.png", "has {name}, but"),
        ("labels/{stem.png", "unbalanced braces"),
        ("labels/{stem!r}.png", "has {stem!r}; write {stem}"),
    ],
)
def test_label_patterns_that_cannot_work_are_refused(labels: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_label_pattern("harbour", "images/*.png", labels)
