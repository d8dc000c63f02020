"""What `t2sda infer` says while it works."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest

from t2sda.cli.infer_progress import InferProgress

VIDEO = Path("clips/drive.mp4")


class Terminal(io.StringIO):
    """What a terminal is told."""

    def isatty(self) -> bool:
        return True

    def changes(self) -> list[str]:
        return self.getvalue().split("\r\x1b[K")[1:]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=0.5)
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))


@pytest.mark.usefixtures("clock")
def test_lines_within_a_video_now_and_then() -> None:
    stream = io.StringIO()
    with InferProgress(stream, total=2) as progress:
        progress.image(Path("a.png"))
        for done in range(1, 46):
            progress.frame(VIDEO, done, 50)
        progress.image(VIDEO)
    lines = stream.getvalue().splitlines()
    assert [line.rsplit(" ", 3)[0] for line in lines] == [
        "1/2 a.png",
        "clips/drive.mp4: 22/50 frames,",
        "clips/drive.mp4: 43/50 frames,",
        "2/2 clips/drive.mp4",
    ]
    assert all(line.endswith(" 2.0 a second") for line in lines[:3])


def test_frames_of_a_video_that_does_not_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=11)
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    stream = io.StringIO()
    with InferProgress(stream, total=1) as progress:
        progress.frame(VIDEO, 1, 0)
        progress.frame(VIDEO, 2, 0)
    assert stream.getvalue() == "clips/drive.mp4: 2/? frames, 0.1 a second\n"


@pytest.mark.usefixtures("clock")
def test_a_terminal_sees_the_frames_of_each_video_and_what_is_left() -> None:
    stream = Terminal()
    with InferProgress(stream, total=3) as progress:
        for path, total in ((Path("first.mp4"), 20), (Path("second.mkv"), 0)):
            for done in range(1, 4):
                progress.frame(path, done, total)
            progress.image(path)
    changes = stream.changes()
    assert [change for change in changes if "frames" in change][2::3] == [
        "0/3  first.mp4: 3/20 frames, 1.0 a second",
        "1/3  second.mkv: 3/? frames, 1.0 a second",
    ]
    assert changes[3].startswith("1/3  ")
    assert changes[3].endswith(" left  first.mp4")
    assert changes[-1] == "", "the line goes when all is done"


def test_a_terminal_is_not_told_more_often_than_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = itertools.count(step=0.01)
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    stream = Terminal()
    with InferProgress(stream, total=1) as progress:
        for done in range(1, 101):
            progress.frame(VIDEO, done, 100)
    assert 10 < len(stream.changes()) < 30


def test_long_names_do_not_break_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with InferProgress(stream, total=1) as progress:
        progress.image(Path("a" * 300))
    assert len(stream.changes()[0]) == 39
