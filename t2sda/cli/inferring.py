"""The work of `t2sda infer`: files in, result files out, many at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from t2sda.cli.infer_progress import InferProgress, infer_progress
from t2sda.data.decode import UnreadableFileError
from t2sda.errors import MissingFileError, UserError
from t2sda.inference.overlapped import in_batches, overlapped
from t2sda.inference.pictures import read_picture
from t2sda.inference.results import result_paths, write_png, write_results
from t2sda.inference.segmenter import Segmenter
from t2sda.inference.shares import SHARES_NAME, Record
from t2sda.inference.sources import Picture
from t2sda.inference.video import (
    VIDEO_KINDS,
    VIDEO_SUFFIXES,
    EncodingError,
    Frame,
    VideoReader,
    VideoWriter,
    draw_frame,
    video_path,
)
from t2sda.inference.visualisation import class_counts, legend

SOME_UNREADABLE = 3
"""Exit code: everything else is done."""
_LEFT_OUT = (
    UnreadableFileError,
    MissingFileError,  # it may vanish while others are worked on
    EncodingError,
)


class Done(NamedTuple):
    """A picture that is finished, or why it was left out."""

    source: Picture
    counts: np.ndarray
    error: UserError | None = None


class DoneFrame(NamedTuple):
    """A frame of a video, as each kind of result shows it."""

    drawn: list[np.ndarray]
    pts: int
    counts: np.ndarray


class Inference:
    """Pictures and videos in, result files out.

    Args:
        segmenter: of pictures.
        output_dir: exists and can be written to.
        kinds: of results, from KINDS.
        console: for progress.
        num_workers: pictures or frames in work at once.
        resume: leave out what an earlier run finished.
        settings: what results depend on besides `kinds`, for `resume`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        output_dir: Path,
        kinds: Sequence[str],
        console: Console,
        num_workers: int = 1,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.taxonomy = segmenter.model.taxonomy
        self.output_dir = output_dir
        self.kinds = kinds
        self.console = console
        self.num_workers = num_workers
        self.record = Record(output_dir, {**(settings or {}), "kinds": list(kinds)}, resume)
        self.unreadable: list[UserError] = []
        self._frames_done = 0

    def run(self, sources: Sequence[Picture]) -> int:
        """Segment them all, write what was seen; returns the exit code."""
        _check_kinds(sources, self.kinds)
        begin = time.perf_counter()
        waiting = [source for source in sources if not self._is_finished(source)]
        for source in waiting:  # if it cannot be read today, what it was earlier does not count
            self.record.finished.pop(str(source.name), None)
        with infer_progress(self.console, len(waiting)) as progress:
            for done in self._work(waiting, progress):
                if done.error is not None:
                    self.unreadable.append(done.error)
                else:
                    self.record.add(str(done.source.name), done.counts, done.source.path)
                progress.picture(done.source.path)
        names = [str(source.name) for source in sources]
        self._write_legend(names)
        self._conclude(len(waiting), len(sources), time.perf_counter() - begin)
        return SOME_UNREADABLE if self.unreadable else 0

    def _is_finished(self, source: Picture) -> bool:
        paths = (
            [video_path(self.output_dir / source.name, kind) for kind in self.kinds]
            if is_video(source.path)
            else result_paths(self.output_dir / source.name, self.kinds)
        )
        finished = self.record.holds(str(source.name), source.path)
        return finished and all(path.is_file() for path in paths)

    def _work(self, sources: Sequence[Picture], progress: InferProgress) -> Iterator[Done]:
        pictures = [source for source in sources if not is_video(source.path)]
        batches = in_batches(pictures, self.segmenter.num_pictures)
        for batch in overlapped(self._segment_pictures, batches, self.num_workers):
            yield from batch
        for source in sources:
            if is_video(source.path):
                yield self._segment_video(source, progress)

    def _segment_pictures(self, batch: Sequence[Picture]) -> list[Done]:
        nothing = np.zeros(self.taxonomy.num_classes, dtype=np.int64)
        readable: list[tuple[Picture, np.ndarray]] = []
        done = []
        for source in batch:
            try:
                readable.append((source, read_picture(source.path)))
            except _LEFT_OUT as error:
                done.append(Done(source, nothing, error))
        found = self.segmenter([image for _, image in readable])
        for (source, image), own in zip(readable, found, strict=True):
            target = self.output_dir / source.name
            write_results(target, image, own, self.taxonomy, self.kinds)
            done.append(Done(source, class_counts(own.labels, self.taxonomy)))
        return done

    def _segment_video(self, source: Picture, progress: InferProgress) -> Done:
        counts = np.zeros(self.taxonomy.num_classes, dtype=np.int64)
        num_frames = 0
        try:
            reader = VideoReader(source.path)
            with ExitStack() as stack:
                writers = [
                    stack.enter_context(VideoWriter(path, reader.rate, reader.time_base))
                    for path in (
                        video_path(self.output_dir / source.name, kind) for kind in self.kinds
                    )
                ]
                batches = in_batches(reader, self.segmenter.num_pictures)
                for batch in overlapped(self._segment_frames, batches, self.num_workers):
                    for frame in batch:
                        for writer, picture in zip(writers, frame.drawn, strict=True):
                            writer.write(picture, frame.pts)
                        counts += frame.counts
                        num_frames += 1
                        progress.frame(source.path, num_frames, reader.num_frames)
        except _LEFT_OUT as error:
            return Done(source, counts, error)
        finally:
            self._frames_done += num_frames
        return Done(source, counts)

    def _segment_frames(self, frames: Sequence[Frame]) -> list[DoneFrame]:
        images = [frame.image for frame in frames]
        return [
            DoneFrame(
                [draw_frame(frame.image, own.labels, self.taxonomy, kind) for kind in self.kinds],
                frame.pts,
                class_counts(own.labels, self.taxonomy),
            )
            for frame, own in zip(frames, self.segmenter(images), strict=True)
        ]

    def _write_legend(self, names: Sequence[str]) -> None:
        counts = self.record.counts(names, self.taxonomy.num_classes)
        if counts.any():
            write_png(self.output_dir / "legend.png", legend(counts, self.taxonomy, width=480))
            self.record.write_shares(self.output_dir / SHARES_NAME, names, self.taxonomy)

    def _conclude(self, num_waiting: int, num_sources: int, seconds: float) -> None:
        done = num_waiting - len(self.unreadable)
        skipped = num_sources - num_waiting
        frames = f", {self._frames_done} frames" if self._frames_done else ""
        earlier = f", {skipped} finished earlier" if skipped else ""
        rate = (self._frames_done or done) / seconds
        self.console.print(
            f"{done} pictures{frames} in {seconds:.1f} s ({rate:.1f} a second){earlier}; "
            f"results in {self.output_dir}",
            highlight=False,
            soft_wrap=True,
        )
        if self.unreadable:
            print(f"{len(self.unreadable)} files were left out:", file=sys.stderr)
            for error in self.unreadable:
                print(f"  {error}", file=sys.stderr)


def is_video(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _check_kinds(sources: Sequence[Picture], kinds: Sequence[str]) -> None:
    wrong = [kind for kind in kinds if kind not in VIDEO_KINDS]
    if wrong and any(is_video(source.path) for source in sources):
        raise UserError(
            f"--kind {wrong[0]}: a video can be shown as {', '.join(VIDEO_KINDS)} "
            f"(panel: side by side)"
        )
