"""How far `t2sda infer` is: a line that changes on a terminal, a line for each image elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from t2sda.errors import printable

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_CHANGES = 0.1
_CLEAR = "\r\x1b[K"


class InferProgress:
    """Shows how far the work is; a context manager.

    Args:
        stream: where to show it.
        total: images and videos.
        shown: what a path is called.
    """

    def __init__(self, stream: TextIO, total: int, shown: Callable[[Path], str] = str) -> None:
        self._stream = stream
        self._shown = shown
        self._total = total
        self._done = 0
        self._is_terminal = stream.isatty()
        self._begin = self._said = time.perf_counter()
        self._changed = 0.0
        self._video: Path | None = None
        self._video_begin = 0.0

    def __enter__(self) -> InferProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._is_terminal:
            print(_CLEAR, end="", file=self._stream, flush=True)

    def image(self, path: Path) -> None:
        """An image or a whole video is finished."""
        self._done += 1
        self._video = None
        elapsed = time.perf_counter() - self._begin
        pace = self._done / elapsed
        if self._is_terminal:
            left = round((self._total - self._done) / pace)
            times = f"{pace:.1f} a second, {left // 60}:{left % 60:02d} left"
            self._change(f"{self._done}/{self._total}  {times}  {path.name}")
        else:
            self._say(f"{self._done}/{self._total} {self._shown(path)} {pace:.1f} a second")

    def frame(self, path: Path, done: int, total: int) -> None:
        """`done` frames of a video are finished, of `total`; 0 if its file does not say."""
        now = time.perf_counter()
        if path != self._video:
            self._video, self._video_begin, self._said = path, now, now
        pace = (done - 1) / max(now - self._video_begin, 1e-9)  # from the first frame on
        frames = f"{done}/{total or '?'} frames, {pace:.1f} a second"
        if self._is_terminal:
            self._change(f"{self._done}/{self._total}  {path.name}: {frames}")
        elif now - self._said > SECONDS_BETWEEN_LINES:
            self._said = now
            self._say(f"{self._shown(path)}: {frames}")

    def _change(self, text: str) -> None:
        now = time.perf_counter()
        if now - self._changed < SECONDS_BETWEEN_CHANGES and self._done < self._total:
            return
        self._changed = now
        width = shutil.get_terminal_size().columns - 1
        print(f"{_CLEAR}{printable(text)[:width]}", end="", file=self._stream, flush=True)

    def _say(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)
