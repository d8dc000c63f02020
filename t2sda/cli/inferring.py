"""The work of `t2sda infer`: files in, result files out, many at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from t2sda.cli.infer_progress import InferProgress
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import (
    MissingFileError,
    NameTooLongError,
    UnreadableFileError,
    UserError,
    printable,
)
from t2sda.images import read_image
from t2sda.images.files import TooManyPixelsError
from t2sda.inference.overlapped import in_batches, overlapped
from t2sda.inference.results import result_paths, write_png, write_results
from t2sda.inference.segmenter import Segmenter
from t2sda.inference.shards import End
from t2sda.inference.shares import LEGEND_NAME, SHARES_NAME, Record, remove_summary
from t2sda.inference.sources import Source
from t2sda.inference.transfer import Transfer
from t2sda.inference.video import (
    VIDEO_KINDS,
    EncodingError,
    Frame,
    VideoReader,
    VideoWriter,
    draw_frame,
    video_path,
)
from t2sda.inference.visualisation import PLAIN, OverlayStyle, class_counts, legend
from t2sda.runtime.memory import TooLargeError, named_if_too_large

SOME_LEFT_OUT = 3
"""Exit code: everything else is done."""
_LEFT_OUT = (
    UnreadableFileError,
    MissingFileError,  # it may vanish while others are worked on
    EncodingError,
    TooLargeError,
    NameTooLongError,
)


class Done(NamedTuple):
    """An image or video that is finished, or why it was left out."""

    source: Source
    counts: np.ndarray
    error: UserError | None = None
    num_frames: int = 0
    faults: tuple[str, ...] = ()
    """Of a video that was segmented as far as it can be decoded."""


class DoneFrame(NamedTuple):
    """A frame of a video, as each kind of result shows it."""

    drawn: list[np.ndarray]
    pts: int
    counts: np.ndarray


class Inference:
    """Images and videos in, result files out.

    Args:
        segmenter: of images.
        output_dir: exists and can be written to.
        kinds: of results, from KINDS.
        stream: for progress.
        num_workers: images or frames in work at once.
        resume: leave out what an earlier run finished.
        settings: what results depend on besides `kinds`, for `resume`.
        style: of overlays and panels.
        record_dir: of the record and the summary; by default that of the results.
        transfer: of what is behind URLs; by default nothing is.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        output_dir: Path,
        kinds: Sequence[str],
        stream: TextIO,
        num_workers: int = 1,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        style: OverlayStyle = PLAIN,
        record_dir: Path | None = None,
        transfer: Transfer | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.taxonomy = segmenter.model.taxonomy
        self.output_dir = output_dir
        self.record_dir = record_dir or output_dir
        self.kinds = kinds
        self.style = style
        self.stream = stream
        self.num_workers = num_workers
        self.transfer = transfer or Transfer()
        self.record = Record(
            self.record_dir,
            {**(settings or {}), "kinds": sorted(set(kinds))},
            resume,
            self.taxonomy.num_classes,
            self.transfer.stamp,
        )
        self.left_out: list[UserError] = []
        self.incomplete: dict[str, str] = {}
        """Name of a damaged video -> what is said of it."""

    def run(self, sources: Sequence[Source]) -> int:
        """Segment them all, write what was seen; returns the exit code."""
        _check_kinds(sources, self.kinds)
        remove_summary(self.record_dir)  # until the end it would be of other images
        self.transfer.note(self.record.path)
        begin = time.perf_counter()
        finished: list[Done] = []
        waiting = [source for source in sources if not self._is_finished(source)]
        for source in waiting:  # if it cannot be read today, what it was earlier does not count
            self.record.finished.pop(str(source.name), None)
        with InferProgress(self.stream, len(waiting), self.transfer.shown) as progress:
            for done in self._work(waiting, progress):
                if done.error is not None:
                    self.left_out.append(done.error)
                elif done.faults:  # not in the record: a resumed run says it again
                    self.record.finished[str(done.source.name)] = done.counts.tolist()
                    text = f"{done.source.path}: {', '.join(done.faults)}"
                    self.incomplete[str(done.source.name)] = text
                    finished.append(done)
                else:
                    self.record.add(str(done.source.name), done.counts, done.source.path)
                    self.transfer.note(self.record.path)
                    finished.append(done)
                progress.image(done.source.path)
        names = [str(source.name) for source in sources]
        self._write_legend(names)
        self._conclude(finished, len(sources) - len(waiting), time.perf_counter() - begin)
        return SOME_LEFT_OUT if self.left_out or self.incomplete else 0

    def end(self, sources: Sequence[Source]) -> End:
        """What came of all that `run` was given."""
        incomplete = {name: self.record.finished[name] for name in self.incomplete}
        names = [str(source.name) for source in sources]
        return End(names, len(self.left_out), incomplete, self.taxonomy)

    def _is_finished(self, source: Source) -> bool:
        paths = (
            self._video_paths(source)
            if source.is_video
            else result_paths(self.output_dir / source.name, self.kinds)
        )
        finished = self.record.holds(str(source.name), source.path)
        return finished and self.transfer.is_finished(paths)

    def _work(self, sources: Sequence[Source], progress: InferProgress) -> Iterator[Done]:
        images = [source for source in sources if not source.is_video]
        yield from self._all_images(images)
        for source in sources:
            if source.is_video:
                yield self._segment_video(source, progress)

    def _all_images(self, images: Sequence[Source]) -> Iterator[Done]:
        """Many at once; what memory is short for comes again at the end, alone."""
        batches = in_batches(self.transfer.ahead(images), self.segmenter.num_images)
        again = []
        for batch in overlapped(self._segment_images, batches, self.num_workers):
            for done in batch:
                if isinstance(done.error, TooLargeError):
                    again.append(done.source)
                else:
                    yield done
        for source in again:
            yield from self._segment_images([source])

    def _segment_images(self, batch: Sequence[Source]) -> list[Done]:
        readable: dict[Source, np.ndarray] = {}
        left_out = []
        for source in batch:
            try:
                with self._named_if_too_large(source.path), self.transfer.here(source.path):
                    readable[source] = read_image(source.path)
            except _LEFT_OUT as error:
                left_out.append(self._leave_out(source, error))
        names = [_with_size(source.path, image.shape) for source, image in readable.items()]
        try:
            with self._named_if_too_large(", ".join(names)):
                return left_out + self._written(readable)
        except TooLargeError as error:
            return left_out + [self._leave_out(source, error) for source in readable]

    def _written(self, images: Mapping[Source, np.ndarray]) -> list[Done]:
        done = []
        found = self.segmenter(list(images.values()))
        for (source, image), own in zip(images.items(), found, strict=True):
            target = self.output_dir / source.name
            try:
                write_results(target, image, own, self.taxonomy, self.kinds, self.style)
            except (NameTooLongError, TooManyPixelsError) as error:
                done.append(self._leave_out(source, error))
            else:
                self.transfer.deliver(result_paths(target, self.kinds))
                done.append(Done(source, class_counts(own.labels, self.taxonomy)))
        return done

    def _leave_out(self, source: Source, error: UserError) -> Done:
        error.__context__ = None  # with its traceback it would keep images in memory
        nothing = np.zeros(self.taxonomy.num_classes, dtype=np.int64)
        return Done(source, nothing, error.with_traceback(None))

    def _named_if_too_large(self, name: object) -> AbstractContextManager[None]:
        window = "--window HEIGHT WIDTH" if self.segmenter.window is None else "a smaller --window"
        return named_if_too_large(
            name, f"use {window}, a smaller --batch, fewer --workers, or a smaller image"
        )

    def _segment_video(self, source: Source, progress: InferProgress) -> Done:
        try:
            with self.transfer.here(source.path):
                done = self._segment_readable_video(source, progress)
        except _LEFT_OUT as error:
            return self._leave_out(source, error)
        self.transfer.deliver(self._video_paths(source))
        return done

    def _segment_readable_video(self, source: Source, progress: InferProgress) -> Done:
        counts = np.zeros(self.taxonomy.num_classes, dtype=np.int64)
        num_frames = 0
        reader = VideoReader(source.path)
        name = _with_size(source.path, reader.size)
        with self._named_if_too_large(name), ExitStack() as stack:
            writers = [
                stack.enter_context(VideoWriter(path, reader.rate, reader.time_base))
                for path in self._video_paths(source)
            ]
            batches = in_batches(reader, self.segmenter.num_images)
            for batch in overlapped(self._segment_frames, batches, self.num_workers):
                for frame in batch:
                    for writer, image in zip(writers, frame.drawn, strict=True):
                        writer.write(image, frame.pts)
                    counts += frame.counts
                    num_frames += 1
                    progress.frame(source.path, num_frames, reader.num_frames)
        return Done(source, counts, num_frames=num_frames, faults=tuple(reader.faults))

    def _video_paths(self, source: Source) -> list[Path]:
        return [video_path(self.output_dir / source.name, kind) for kind in self.kinds]

    def _segment_frames(self, frames: Sequence[Frame]) -> list[DoneFrame]:
        images = [frame.image for frame in frames]
        return [
            DoneFrame(
                [
                    draw_frame(frame.image, own.labels, self.taxonomy, kind, self.style)
                    for kind in self.kinds
                ],
                frame.pts,
                class_counts(own.labels, self.taxonomy),
            )
            for frame, own in zip(frames, self.segmenter(images), strict=True)
        ]

    def _write_legend(self, names: Sequence[str]) -> None:
        numbers = self.style.numbers
        write_summary(self.record, self.record_dir, names, self.taxonomy, numbers=numbers)

    def _conclude(self, finished: Sequence[Done], num_earlier: int, seconds: float) -> None:
        num_videos = sum(done.source.is_video for done in finished)
        num_images = len(finished) - num_videos
        num_frames = sum(done.num_frames for done in finished)
        parts = [_counted(num_images, "image")] if num_images or not num_videos else []
        if num_videos:
            parts.append(f"{_counted(num_videos, 'video')} of {_counted(num_frames, 'frame')}")
        earlier = f", {num_earlier} finished earlier" if num_earlier else ""
        rate = (num_images + num_frames) / seconds
        print(
            f"{', '.join(parts)} in {seconds:.1f} s ({rate:.1f} a second){earlier}; "
            f"results in {self.transfer.shown(self.output_dir)}",
            file=self.stream,
        )
        if self.left_out:
            print(f"{len(self.left_out)} files were left out:", file=sys.stderr)
            for error in self.left_out:
                print(printable(f"  {self.transfer.shown(error)}"), file=sys.stderr)
        if self.incomplete:
            print("damaged, segmented as far as they can be decoded:", file=sys.stderr)
            for text in self.incomplete.values():
                print(printable(f"  {self.transfer.shown(text)}"), file=sys.stderr)


def write_summary(
    record: Record,
    folder: Path,
    names: Sequence[str],
    taxonomy: Taxonomy,
    *,
    numbers: bool = False,
) -> None:
    """Legend (with train ids if `numbers`) and shares of what was seen, if anything was."""
    counts = record.counts(names)
    if counts.any():
        write_png(folder / LEGEND_NAME, legend(counts, taxonomy, width=480, numbers=numbers))
        record.write_shares(folder / SHARES_NAME, names, taxonomy)


def _with_size(path: Path, shape: Sequence[int]) -> str:
    return f"{path} ({shape[0]}x{shape[1]}, height x width)"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _check_kinds(sources: Sequence[Source], kinds: Sequence[str]) -> None:
    wrong = [kind for kind in kinds if kind not in VIDEO_KINDS]
    if wrong and any(source.is_video for source in sources):
        raise UserError(
            f"--kind {wrong[0]}: a video can be shown as {', '.join(VIDEO_KINDS)} "
            f"(panel: side by side)"
        )
