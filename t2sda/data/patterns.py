"""Patterns of file names: what can be found, and how a label is called."""

from __future__ import annotations

import string
from pathlib import PurePosixPath

from t2sda.errors import UserError
from t2sda.images.finding import WILDCARD


def check_below_root(dataset: str, **patterns: str | None) -> None:
    """Raise UserError for a pattern that globbing would refuse, by the name of its key."""
    for key, pattern in patterns.items():
        if pattern is not None and key != "images" and not PurePosixPath(pattern).name.strip("."):
            raise UserError(f"dataset '{dataset}': {key}={pattern!r} names no file")
        if "\0" in (pattern or ""):
            raise UserError(f"dataset '{dataset}': {key}={pattern!r} holds a NUL character")
        if pattern is not None and PurePosixPath(pattern).is_absolute():
            raise UserError(
                f"dataset '{dataset}': {key}={pattern!r} is absolute; name the folder in `root`, "
                f"and the rest here"
            )
        if ".." in PurePosixPath(pattern or "").parts:
            raise UserError(
                f"dataset '{dataset}': {key}={pattern!r} leaves `root`; name a folder in `root` "
                f"that all files lie in"
            )
        if any("**" in part and part != "**" for part in PurePosixPath(pattern or "").parts):
            raise UserError(
                f"dataset '{dataset}': {key}={pattern!r}: ** stands for folders and must be alone "
                f"between two /; use * within a name"
            )


def check_label_pattern(dataset: str, images: str, labels: str) -> None:
    """Raise UserError if a label's path may be the same as its image's."""
    names = _placeholders(dataset, labels)
    if not names:
        raise UserError(
            f"dataset '{dataset}': labels={labels!r} has no {{stem}} and no {{1}}, so all images "
            f"would share one label"
        )
    count = 0 if "{stem}" in images else len(WILDCARD.findall(images))
    known = ["stem", *map(str, range(1, count + 1))]
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(f"{{{name}}}" for name in known)
        raise UserError(
            f"dataset '{dataset}': labels={labels!r} has {{{unknown[0]}}}, but images={images!r} "
            f"gives only {shown}"
        )


def check_image_pattern(dataset: str, images: str) -> None:
    """Raise UserError if `images` of a dataset with `stems` has more to fill in than {stem}."""
    unknown = [name for name in _placeholders(dataset, images, "images") if name != "stem"]
    if unknown:
        raise UserError(
            f"dataset '{dataset}': images={images!r} has {{{unknown[0]}}}, but a list file gives "
            f"only {{stem}}"
        )


def _placeholders(dataset: str, pattern: str, key: str = "labels") -> list[str]:
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise UserError(
            f"dataset '{dataset}': {key}={pattern!r} has unbalanced braces ({error}); write "
            f"{{stem}}"
        ) from None
    for _, name, form, conversion in parts:
        if conversion or form:
            more = f"!{conversion}" if conversion else f":{form}"
            raise UserError(
                f"dataset '{dataset}': {key}={pattern!r} has {{{name}{more}}}; write "
                f"{{{name}}}: names are put in as they are"
            )
    return [name for _, name, _, _ in parts if name is not None]
