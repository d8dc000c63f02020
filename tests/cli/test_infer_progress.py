"""What `t2sda infer` says while it works."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
from rich.console import Console

from t2sda.cli.infer_progress import infer_progress

VIDEO = Path("clips/drive.mp4")


def test_lines_within_a_video_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=0.5)
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    console = Console(file=io.StringIO(), record=True, width=200)
    with infer_progress(console, total=2) as progress:
        progress.picture(Path("a.png"))
        for done in range(1, 46):
            progress.frame(VIDEO, done, 50)
        progress.picture(VIDEO)
    lines = console.export_text().splitlines()
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
    console = Console(file=io.StringIO(), record=True, width=200)
    with infer_progress(console, total=1) as progress:
        progress.frame(VIDEO, 1, 0)
        progress.frame(VIDEO, 2, 0)
    assert console.export_text() == "clips/drive.mp4: 2/? frames, 0.1 a second\n"


def test_a_video_does_not_show_the_total_of_the_one_before() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, record=True, width=120)
    with infer_progress(console, total=3) as progress:
        for path, total, shown in (
            (Path("first.mp4"), 20, "3/20"),
            (Path("second.mkv"), 0, "3/?"),
            (Path("third.mp4"), 7, "3/7"),
        ):
            console.export_text()
            for done in range(1, 4):
                progress.frame(path, done, total)
            progress._progress.refresh()  # type: ignore[attr-defined]  # waits for a timer else
            assert shown in console.export_text().rsplit("frames")[-1]
            progress.picture(path)


def test_bars_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, record=True, width=120)
    with infer_progress(console, total=2) as progress:
        progress.picture(Path("a.png"))
        for done in range(1, 8):
            progress.frame(VIDEO, done, 20)
        progress._progress.refresh()  # type: ignore[attr-defined]  # waits for a timer else
    text = console.export_text()
    assert "1/2" in text
    assert "7/20" in text
    assert "a second  drive.mp4" in text
    assert "frames" not in text.rsplit("segmenting")[-1], (
        "the bar of the video goes when all is done"
    )
