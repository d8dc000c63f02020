"""How far `t2sda infer` is: bars on a terminal, a line for each picture elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from t2sda.cli.progress import SECONDS_BETWEEN_LINES
from t2sda.errors import printable


class InferProgress(ABC):
    """What is told how far the work is; a context manager."""

    def __enter__(self) -> InferProgress:
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @abstractmethod
    def picture(self, path: Path) -> None:
        """A picture or a whole video is finished."""

    @abstractmethod
    def frame(self, path: Path, done: int, total: int) -> None:
        """`done` frames of a video are finished, of `total`; 0 if its file does not say."""


def infer_progress(console: Console, total: int) -> InferProgress:
    """Of `total` pictures and videos, as `console` can show it."""
    return Bars(console, total) if console.is_terminal else Lines(console, total)


class Bars(InferProgress):
    """A bar over all, and one over the frames of a video."""

    def __init__(self, console: Console, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._all = self._progress.add_task("segmenting", total=total, note="")
        self._frames = self._progress.add_task("frames", total=None, note="", visible=False)
        self._video: Path | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._frames, visible=False)
        self._progress.stop()

    def picture(self, path: Path) -> None:
        self._progress.update(self._all, advance=1, note=self._note(self._all, path))

    def frame(self, path: Path, done: int, total: int) -> None:
        if path != self._video:
            self._video = path
            self._progress.reset(self._frames, visible=True)
            # Set here, as `reset` takes None for the total of the video before.
            self._progress.tasks[self._frames].total = total or None
        note = self._note(self._frames, path)
        self._progress.update(self._frames, completed=done, note=note)

    def _note(self, task: int, path: Path) -> str:
        speed = self._progress.tasks[task].speed or 0.0
        return printable(f"{speed:.1f} a second  {path.name}")


class Lines(InferProgress):
    """A line for each picture, and one every few seconds within a video."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0
        self._begin = self._said = self._video_begin = time.perf_counter()
        self._video: Path | None = None

    def __exit__(self, *_: object) -> None:
        """Nothing is to be taken away."""

    def picture(self, path: Path) -> None:
        self._done += 1
        pace = self._done / (time.perf_counter() - self._begin)
        self._say(f"{self._done}/{self._total} {path} {pace:.1f} a second")

    def frame(self, path: Path, done: int, total: int) -> None:
        now = time.perf_counter()
        if path != self._video:
            self._video, self._video_begin, self._said = path, now, now
        elif now - self._said > SECONDS_BETWEEN_LINES:
            self._said = now
            pace = (done - 1) / (now - self._video_begin)  # from the first frame on
            self._say(f"{path}: {done}/{total or '?'} frames, {pace:.1f} a second")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
