"""Patterns of file names: from an image's path to its label's."""

from __future__ import annotations

import fnmatch
import re
import string
from pathlib import Path, PurePath, PurePosixPath

from t2sda.errors import UserError

# Brackets as fnmatch reads them: a ] that comes first belongs to them.
_WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\[!?+(?:\](?=[^/]*\])[^]/]*+|[^]/]++)\]")
_AS_REGEX = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}

MAX_FOLDERS = 100
"""On the way to a file; globbing calls itself for each."""


def wildcards_of(pattern: str, path: PurePath) -> tuple[str, ...]:
    """What each wildcard of a glob pattern stands for in a path that matches it.

    `a/*/*_x.png` and `a/b/c_x.png` give ("b", "c"). A `**` gives its folders without the last /.
    """
    pattern = PurePosixPath(pattern).as_posix()  # as globbing does: without ./ and //
    pieces, place = [], 0
    for wildcard in _WILDCARD.finditer(pattern):
        pieces.append(re.escape(pattern[place : wildcard.start()]))
        pieces.append(_AS_REGEX.get(wildcard[0]) or f"({_bracket_regex(wildcard[0])})")
        place = wildcard.end()
    pieces.append(re.escape(pattern[place:]))
    found = re.fullmatch("".join(pieces), path.as_posix(), re.DOTALL)
    assert found is not None, f"{path} does not match {pattern}"
    return tuple(group.rstrip("/") for group in found.groups())


def _bracket_regex(bracket: str) -> str:
    """As globbing reads it: `[z-a]` matches nothing, `[^a]` a ^ or an a."""
    return fnmatch.translate(bracket)[:-2]  # without the end of the text


def fixed_folder(pattern: str) -> Path:
    """The folder that a pattern begins with, before its first wildcard."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return Path(fixed.rpartition("/")[0])


def check_below_root(dataset: str, **patterns: str | None) -> None:
    """Raise UserError for a pattern that globbing would refuse, by the name of its key."""
    for key, pattern in patterns.items():
        if pattern is not None and not PurePosixPath(pattern).name.strip("."):
            raise UserError(f"dataset '{dataset}': {key}={pattern!r} names no file")
        if "\0" in (pattern or ""):
            raise UserError(f"dataset '{dataset}': {key}={pattern!r} holds a NUL character")
        if len(PurePosixPath(pattern or "").parts) > MAX_FOLDERS:
            raise UserError(f"dataset '{dataset}': {key}: more than {MAX_FOLDERS} folders deep")
        if pattern is not None and PurePosixPath(pattern).is_absolute():
            raise UserError(
                f"dataset '{dataset}': {key}={pattern!r} is absolute; name the folder in `root`, "
                f"and the rest here"
            )
        if any("**" in part and part != "**" for part in PurePosixPath(pattern or "").parts):
            raise UserError(
                f"dataset '{dataset}': {key}={pattern!r}: ** stands for folders and must be alone "
                f"between two /; use * within a name"
            )


def check_label_pattern(dataset: str, images: str, labels: str) -> None:
    """Raise UserError if a label's path cannot be told from its image's."""
    names = _placeholders(dataset, labels)
    if not names:
        raise UserError(
            f"dataset '{dataset}': labels={labels!r} has no {{stem}} and no {{1}}, so all images "
            f"would share one label"
        )
    count = 0 if "{stem}" in images else len(_WILDCARD.findall(images))
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
            f"only {{stem}}; write {{{{ and }}}} for braces of a name"
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
