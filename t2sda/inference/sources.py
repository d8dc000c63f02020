"""What `--input` names: a picture or video, a folder of them, or a pattern."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from t2sda.errors import MissingFileError, UserError
from t2sda.inference.video import VIDEO_SUFFIXES

PICTURE_SUFFIXES = frozenset(
    (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What is taken from a folder; a file that is named itself may have any ending."""


@dataclass(frozen=True)
class Picture:
    """One picture or video to segment.

    Attributes:
        path: of the file.
        name: what its results are called, below the output folder, without ending; no two
            pictures of a run share one.
    """

    path: Path
    name: Path


def find_pictures(source: str, output_dir: Path) -> list[Picture]:
    """The pictures that a file, folder or pattern stands for, in the order of their paths.

    A folder is searched with its sub-folders, for files that end like pictures or videos. A
    pattern (*, **, ?, [abc]) takes every file that matches. Results of earlier runs are left out:
    what lies below an `output_dir` inside of the folder, or of what all matches share.

    Raises:
        MissingFileError: if there is nothing of that name, or no picture in it.
        UserError: if results would come to lie among the pictures of the folder itself.
    """
    path = Path(source)
    if path.is_file():
        return [Picture(path, Path(path.stem))]
    root, paths = (
        (path, _below(path, output_dir)) if path.is_dir() else _matching(source, output_dir)
    )
    return [Picture(path, name) for path, name in _names(sorted(paths), root).items()]


def _below(folder: Path, output_dir: Path) -> list[Path]:
    output = output_dir.resolve()
    if output == folder.resolve():
        raise UserError(
            f"{folder}: results would lie among the pictures, and be taken for pictures the next "
            f"time; choose another output folder (one inside it will do)"
        )
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES and path.is_file()
    ]
    paths = _without_results(paths, folder, output)
    if not paths:
        endings = " ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
        raise MissingFileError(f"{folder}: no picture in this folder (looked for {endings})")
    return paths


def _without_results(paths: list[Path], root: Path, output: Path) -> list[Path]:
    """What lies below an output folder inside of `root` was written by an earlier run."""
    if root.resolve() not in output.parents:
        return paths
    return [path for path in paths if output not in path.resolve().parents]


def _matching(pattern: str, output_dir: Path) -> tuple[Path, list[Path]]:
    paths = [Path(found) for found in glob.glob(pattern, recursive=True)]  # noqa: PTH207
    paths = [path for path in paths if path.is_file()]
    if paths:
        paths = _without_results(paths, _common_folder(paths), output_dir.resolve())
    if not paths:
        what = "no file matches this pattern" if glob.has_magic(pattern) else "no such file"
        raise MissingFileError(f"{pattern}: {what}; --input takes a file, a folder or a pattern")
    return _common_folder(paths), paths


def _common_folder(paths: list[Path]) -> Path:
    first = paths[0].parent
    return next(
        folder
        for folder in (first, *first.parents)
        if all(folder in path.parents for path in paths)
    )


def _names(paths: list[Path], root: Path) -> dict[Path, Path]:
    """The path below `root` without ending; with it in a folder where endings alone differ."""

    def key(path: Path) -> tuple[Path, str]:
        return path.parent, path.stem.casefold()  # many file systems ignore the case

    shared = {folder for (folder, _), count in Counter(map(key, paths)).items() if count > 1}
    return {
        path: path.parent.relative_to(root) / (path.name if path.parent in shared else path.stem)
        for path in paths
    }
