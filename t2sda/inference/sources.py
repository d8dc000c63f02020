"""What `--input` names: images or videos, folders of them, or patterns."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from t2sda.errors import MissingFileError, UserError
from t2sda.images.content import Kind, kind_of
from t2sda.images.finding import WILDCARD, alternatives, counted, find_files, fixed_folder
from t2sda.inference.shares import results_below

LONGEST_NAME = 160
"""Bytes of a result's name; file systems take 255, with what is put behind it."""
RESULTS = "results of earlier runs"


@dataclass(frozen=True)
class Source:
    """One image or video to segment.

    Attributes:
        path: of the file.
        name: what its results are called, below the output folder, without ending; no two
            of a run share one.
        is_video: by its content, or its ending where that says nothing.
    """

    path: Path
    name: Path
    is_video: bool = False


@dataclass(frozen=True)
class Sources:
    """What an input stands for.

    Attributes:
        images: in the order of their paths.
        passed_over: what lies beside them and was not taken: kind -> how many.
    """

    sources: list[Source]
    passed_over: Counter[str] = field(default_factory=Counter)


class _Found(NamedTuple):
    """Files of one input, and the folder below which they lie."""

    files: list[Path]
    root: Path
    is_video: Callable[[Path], bool]
    passed_over: Counter[str]


def find_all_sources(
    inputs: Sequence[str], output_dir: Path, place_of: Callable[[Path], Path] | None = None
) -> Sources:
    """The images and videos of several inputs, each once, in their order; see `find_sources`.

    Results of several inputs are called like the paths below the folder that all of them lie in.

    Args:
        inputs: at least one.
        output_dir: of the results.
        place_of: where a file lies, for its name: in every run the same. By default its path.

    Raises:
        MissingFileError, UserError: as `find_sources`, or if there is no input.
    """
    if not inputs:
        raise MissingFileError("no input: no file, folder or pattern is named")
    if len(inputs) == 1:
        return find_sources(inputs[0], output_dir)
    place_of = place_of or absolute
    found = [_found(source, output_dir) for source in inputs]
    common = Path(os.path.commonpath({place_of(own.root) for own in found}))
    places: dict[Path, tuple[Path, bool]] = {}
    for own in found:
        for file in own.files:
            same, _ = places.setdefault(place_of(file), (file, own.is_video(file)))
            if absolute(same) != absolute(file):
                raise UserError(
                    f"{file}: its results would be called like those of {same}; segment them in "
                    f"two runs, with an --output each"
                )
    names = _names(list(places), common)
    sources = [Source(file, names[place], film) for place, (file, film) in places.items()]
    return Sources(sources, sum((own.passed_over for own in found), Counter[str]()))


def read_list(text: bytes, where: str) -> list[str]:
    """Inputs from a list: one a line, without blank ones.

    Raises:
        MissingFileError: if it names nothing; `where` says which list.
    """
    lines = [os.fsdecode(line.rstrip(b"\r")) for line in text.split(b"\n")]
    inputs = [line for line in lines if line.strip()]
    if not inputs:
        raise MissingFileError(f"{where}: names no file; one path a line is due")
    return inputs


def find_sources(source: str, output_dir: Path) -> Sources:
    """The images and videos that a file, folder or pattern stands for.

    A folder is searched with its sub-folders for images and videos, recognized by content; links
    are followed. A pattern is one of `t2sda.images.finding.find_files`. Hidden files are passed
    over, and so are results of earlier runs: what lies below an `output_dir` inside of the folder
    that is searched, or is called like a result of a run that left its record there.

    A result is called like its path below the folder, or below what a pattern begins with, so that
    further images rename no result, but for those that differ in their ending alone.

    Raises:
        MissingFileError: if there is nothing of that name, or no image or video in it.
        UserError: if results would come to lie among the images of the folder itself.
    """
    found = _found(source, output_dir)
    names = _names(found.files, found.root)
    sources = [Source(file, names[file], found.is_video(file)) for file in found.files]
    return Sources(sources, found.passed_over)


def _found(source: str, output_dir: Path) -> _Found:
    path = Path(source)
    if path.is_dir():
        root, patterns = path, ["**/*"]
        if output_dir.resolve() == path.resolve():
            raise UserError(
                f"{path}: results would lie among the images, and be taken for images the next "
                f"time; choose another output folder (one inside it will do)"
            )
    elif path.exists() or not (WILDCARD.search(source) or len(alternatives(source)) > 1):
        return _named(path)
    else:
        root, patterns = fixed_folder(source), [source]
        _check_no_way_back(source, root)
        patterns = [str(Path(source).relative_to(root))]
    kinds: dict[Path, Kind | None] = {}

    def is_known(file: Path) -> bool:
        kinds[file] = kind_of(file)
        return kinds[file] is not None

    found = find_files(root, patterns, takes=is_known)
    paths = _without_results(found.files, root, output_dir)
    passed_over = found.passed_over + Counter({RESULTS: len(found.files) - len(paths)})
    if not paths:
        what = "no image or video in this folder" if path.is_dir() else "no file matches"
        beside = f" (passed over: {counted(passed_over)})" if passed_over else ""
        raise MissingFileError(
            f"{source}: {what}{beside}; --input takes a file, a folder or a pattern"
        )
    return _Found(
        paths, root, lambda file: (kinds.get(file) or kind_of(file)) == "video", passed_over
    )


def absolute(path: Path) -> Path:
    """From the root on and without '..', but through links as they are named."""
    return Path(os.path.normpath(Path.cwd() / path))


def _named(path: Path) -> _Found:
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; --input takes a file, a folder or a pattern")
    return _Found([path], path.parent, lambda file: kind_of(file) == "video", Counter())


def _check_no_way_back(pattern: str, root: Path) -> None:
    """Names below the output folder must not lead out of it."""
    if ".." in Path(pattern).relative_to(root).parts:
        raise UserError(
            f"{pattern}: '..' stands behind a wildcard; write the folder that it means, or use **"
        )


def _without_results(paths: Iterable[Path], root: Path, output_dir: Path) -> list[Path]:
    output = output_dir.resolve()
    inside = root.resolve() in output.parents
    results: dict[Path, set[Path]] = {}
    return [
        path
        for path in paths
        if not (inside and output in path.resolve().parents)
        and not any(
            path in _results_of(folder, results)
            for folder in path.parents
            if folder == root or root in folder.parents
        )
    ]


def _results_of(folder: Path, known: dict[Path, set[Path]]) -> set[Path]:
    """What a run that left its record in the folder has written."""
    if folder not in known:
        known[folder] = results_below(folder)
    return known[folder]


def _names(paths: list[Path], root: Path) -> dict[Path, Path]:
    """The path below `root` without ending; with it where another file's name would be the same."""
    taken: Counter[tuple[Path, str]] = Counter()
    for path in paths:  # many file systems ignore the case
        taken.update({(path.parent, path.stem.casefold()), (path.parent, path.name.casefold())})
    return {
        path: path.parent.relative_to(root)
        / _shortened(path.stem if taken[path.parent, path.stem.casefold()] == 1 else path.name)
        for path in paths
    }


def _shortened(name: str) -> str:
    """The name, or its beginning and a digest of it where file systems would refuse results."""
    content = os.fsencode(name)
    if len(content) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(content).hexdigest()[:16]
    while len(os.fsencode(name)) > LONGEST_NAME - len(digest) - 1:
        name = name[:-1]
    return f"{name}_{digest}"
