"""Files by folder or pattern: links are followed, and what is passed over is counted."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from t2sda.errors import UserError
from t2sda.files import is_folder

IMAGE_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pfm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
    )
)
WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\[[^]]+\]")
_AS_REGEX = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_ALTERNATIVES = 1000
_ALL_BELOW = "**/*"


@dataclass(frozen=True)
class Found:
    """Files of some patterns.

    Attributes:
        files: path -> what each wildcard of its pattern stands for; in the order of the paths.
        passed_over: kind -> how many, such as hidden files.
    """

    files: dict[Path, tuple[str, ...]]
    passed_over: Counter[str] = field(default_factory=Counter)


def ends_like_an_image(path: Path) -> bool:
    """By its ending, in any case."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def find_files(
    root: Path, patterns: Sequence[str], takes: Callable[[Path], bool] = ends_like_an_image
) -> Found:
    """The files below `root` that a pattern matches.

    In a pattern * and ? stand for letters of a name, [abc] for one of them, ** for folders, and
    {jpg,png} for one or the other. Its ending is compared in any case. A folder stands for all
    files in it and below. Links are followed. Hidden files and folders are passed over, unless a
    part of the pattern begins with a dot; folders are, and where a pattern gives no ending, files
    that `takes` refuses.

    Raises:
        UserError: if a folder cannot be listed, or a pattern has too many alternatives.
    """
    files: dict[Path, tuple[str, ...]] = {}
    passed_over: dict[str, set[Path]] = {}
    for pattern in (single for given in patterns for single in alternatives(given)):
        search = _Search(root, pattern, takes)
        for path, wildcards in search.matches():
            files.setdefault(path, wildcards)
        for kind, paths in search.passed_over.items():
            passed_over.setdefault(kind, set()).update(paths)
    counted = Counter({kind: len(paths - files.keys()) for kind, paths in passed_over.items()})
    return Found(dict(sorted(files.items())), +counted)


def alternatives(pattern: str) -> list[str]:
    """`a.{jpg,png}` -> [`a.jpg`, `a.png`]; raises UserError if they are too many."""
    count = math.prod(len(found[1].split(",")) for found in _ALTERNATIVES.finditer(pattern))
    if count > _MOST_ALTERNATIVES:
        raise UserError(f"{pattern}: stands for {count} patterns; use * instead of alternatives")
    found = _ALTERNATIVES.search(pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [
        single
        for choice in found[1].split(",")
        for single in alternatives(f"{before}{choice}{after}")
    ]


def wildcards_of(pattern: str, path: str) -> tuple[str, ...] | None:
    """What each wildcard of a pattern stands for in a path, None if it does not match.

    `a/*/*_x.png` and `a/b/c_x.PNG` give ("b", "c"). A `**` gives its folders without the last /.
    """
    found = _regex_of(pattern).fullmatch(path)
    return None if found is None else tuple(group.rstrip("/") for group in found.groups())


def fixed_folder(pattern: str) -> Path:
    """The folder that a pattern begins with, before its first wildcard."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return Path(fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ""))


def counted(passed_over: Counter[str]) -> str:
    """`hidden files: 2, other files: 1`; empty if there are none."""
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(passed_over.items()) if count)


class _Search:
    """One pattern without alternatives, below a folder."""

    def __init__(self, root: Path, pattern: str, takes: Callable[[Path], bool]) -> None:
        pattern = PurePosixPath(pattern).as_posix()  # without ./ and //
        if not WILDCARD.search(pattern) and is_folder(root / pattern):
            pattern = (PurePosixPath(pattern) / _ALL_BELOW).as_posix()
        self.root = root
        self.pattern = pattern
        self.takes = takes
        self.base = fixed_folder(pattern)
        parts = PurePosixPath(pattern).relative_to(PurePosixPath(self.base)).parts
        self.depth = math.inf if "**" in parts else len(parts)
        self.hidden = any(part.startswith(".") for part in parts)
        self.takes_all = _says_what_files(pattern)
        self.passed_over: dict[str, list[Path]] = {}

    def matches(self) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Path and wildcards of every file."""
        for path, below in self._below(self.root / self.base, 1, frozenset()):
            wildcards = wildcards_of(self.pattern, path.relative_to(self.root).as_posix())
            if wildcards is None:
                continue
            if not self.hidden and path.name.startswith("."):
                self._pass_over("hidden folders" if below else "hidden files", path)
            elif below:
                if self.takes_all or self.takes(path):
                    self._pass_over("folders named like files", path)
            elif self.takes_all or self.takes(path):
                yield path, wildcards
            else:
                self._pass_over("other files", path)

    def _below(
        self, folder: Path, depth: int, above: frozenset[str]
    ) -> Iterator[tuple[Path, bool]]:
        """Every file and folder that can match; `above` are the folders that it lies in."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None
        above |= {os.path.realpath(folder)}
        for entry in entries:
            path = folder / entry.name
            below = is_folder(path)
            yield path, below
            if not below or depth >= self.depth:
                continue
            if entry.name.startswith(".") and not self.hidden:
                self._pass_over("hidden folders", path)
            elif os.path.realpath(path) not in above:  # a link to a folder that it lies in
                yield from self._below(path, depth + 1, above)

    def _pass_over(self, kind: str, path: Path) -> None:
        self.passed_over.setdefault(kind, []).append(path)


def _regex_of(pattern: str) -> re.Pattern[str]:
    pattern = PurePosixPath(pattern).as_posix()
    ending = PurePosixPath(pattern).suffix
    text = f"{_regex_text(pattern.removesuffix(ending))}(?i:{_regex_text(ending)})"
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise UserError(f"{pattern}: not a pattern ({error})") from None


def _regex_text(pattern: str) -> str:
    pieces, place = [], 0
    for wildcard in WILDCARD.finditer(pattern):
        pieces.append(re.escape(pattern[place : wildcard.start()]))
        pieces.append(_AS_REGEX.get(wildcard[0], f"({wildcard[0].replace('[!', '[^')})"))
        place = wildcard.end()
    return "".join([*pieces, re.escape(pattern[place:])])


def _says_what_files(pattern: str) -> bool:
    """Whether it names files, or at least their ending."""
    suffix = PurePosixPath(pattern).suffix
    return not WILDCARD.search(pattern) or bool(suffix and not WILDCARD.search(suffix))
