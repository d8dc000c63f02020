"""Video in and out through PyAV: every frame once, with its own time stamp."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import cv2
import numpy as np

from t2sda.data.decode import UnreadableFileError
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.files import written_whole
from t2sda.inference.visualisation import colour_map, overlay

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))
VIDEO_KINDS = ("overlay", "color", "trainid", "panel")
QUALITY = "18"
"""Constant rate factor of H.264: hardly to be told from the original."""
LONGEST_SIDE = 16384
"""Of a picture that libx264 takes."""


class EncodingError(UserError):
    """An encoder refuses this video; others may be taken."""


class Frame(NamedTuple):
    """A picture of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, the way up it is meant to be seen.
        pts: its time, in units of the stream's time base.
    """

    image: np.ndarray
    pts: int


class VideoReader:
    """Frames of a file's first video stream.

    Attributes:
        rate: frames a second.
        time_base: seconds that a step of `Frame.pts` stands for.
        num_frames: as the file says; 0 where it does not.
        size: (height, width) as stored.

    Raises:
        UnreadableFileError: if it is no video.
        UserError: if PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._av = _require_av()
        try:
            self._container = self._av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (self._av.error.FFmpegError, IndexError) as error:
            raise UnreadableFileError(
                f"{path}: not a video that can be decoded ({error})"
            ) from None
        self._stream.thread_type = "AUTO"
        self.rate: Fraction = self._stream.average_rate or Fraction(25)
        self.time_base: Fraction = self._stream.time_base or 1 / self.rate
        self.num_frames: int = self._stream.frames
        self.size: tuple[int, int] = (self._stream.height, self._stream.width)

    def __iter__(self) -> Iterator[Frame]:
        """Every frame; raises UnreadableFileError where the file is damaged or holds none."""
        step = max(round(1 / (self.rate * self.time_base)), 1)
        first = last = -step
        try:
            for frame in self._container.decode(self._stream):
                last = last + step if frame.pts is None else max(frame.pts, last + 1)
                image = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield Frame(np.ascontiguousarray(np.rot90(image, turns)), last)
            if last == first:
                raise UnreadableFileError(f"{self.path}: holds no frame")
        except self._av.error.FFmpegError as error:
            raise UnreadableFileError(f"{self.path}: cannot be decoded ({error})") from None
        finally:
            self._container.close()


class VideoWriter:
    """One video file, which gets its name when it is whole.

    Args:
        path: ends in .mp4 (H.264) or .mkv (lossless grey, for train ids).
        rate: frames a second.
        time_base: of the frames' time stamps.
    """

    def __init__(self, path: Path, rate: Fraction, time_base: Fraction) -> None:
        self.path = path
        self._av = _require_av()
        self._rate = rate
        self._time_base = time_base
        self._lossless = path.suffix == ".mkv"
        self._file = contextlib.ExitStack()  # gives it its name, or removes what is half-written
        self._stream: Any = None
        with self._named_errors(), contextlib.ExitStack() as after_error:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = after_error.enter_context(written_whole(path))
            container_format = "matroska" if self._lossless else "mp4"
            self._container = self._av.open(str(partial), "w", format=container_format)
            self._file = after_error.pop_all()

    def write(self, picture: np.ndarray, pts: int) -> None:
        """Append (H, W, 3) uint8 RGB, or (H, W) uint8 to a lossless file.

        Raises:
            EncodingError: if the encoder does not take it, as H.264 longer sides.
            UserError: if the disk is full or the file cannot be written for another reason.
        """
        picture = picture if self._lossless else self._for_h264(picture)
        frame = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture), format="gray" if self._lossless else "rgb24"
        )
        frame.pts, frame.time_base = pts, self._time_base
        with self._named_errors():
            if self._stream is None:
                self._stream = self._new_stream(picture.shape)
            self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with self._named_errors(), self._file:
                    if self._stream is not None:
                        self._container.mux(self._stream.encode())
                    self._container.close()
        finally:
            with contextlib.suppress(OSError, ValueError, self._av.error.FFmpegError):
                self._container.close()
            self._file.__exit__(kind, error, traceback)

    def _for_h264(self, picture: np.ndarray) -> np.ndarray:
        even = _even(picture)
        if max(even.shape[:2]) <= LONGEST_SIDE:
            return even
        raise EncodingError(
            f"{self.path}: {picture.shape[0]}x{picture.shape[1]} (height x width), and H.264 takes "
            f"sides up to {LONGEST_SIDE}; use a smaller video, or another --kind: a panel is twice "
            f"as wide as its video, and trainid has no limit"
        )

    def _new_stream(self, shape: Sequence[int]) -> Any:
        stream = self._container.add_stream("ffv1" if self._lossless else "libx264", self._rate)
        stream.height, stream.width = shape[:2]
        stream.pix_fmt = "gray" if self._lossless else "yuv420p"
        stream.codec_context.time_base = self._time_base
        if not self._lossless:
            stream.options = {"crf": QUALITY, "preset": "veryfast"}
        return stream

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # FFmpeg's errors of writing are some
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror or error}); "
                f"finished results are whole"
            ) from None
        except self._av.error.FFmpegError as error:
            raise EncodingError(
                f"{self.path}: cannot be encoded ({error}); use another --kind, or convert the "
                f"video to another size or rate"
            ) from None


def video_path(target: Path, kind: str) -> Path:
    """Where a kind of result of a video goes: train ids need a lossless file."""
    return target.with_name(f"{target.name}_{kind}{'.mkv' if kind == 'trainid' else '.mp4'}")


def draw_frame(image: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy, kind: str) -> np.ndarray:
    """What a kind of result shows of a frame; a panel is frame and overlay side by side."""
    if kind == "trainid":
        return labels
    if kind == "color":
        return colour_map(labels, taxonomy)
    drawn = overlay(image, labels, taxonomy)
    return np.concatenate([image, drawn], axis=1) if kind == "panel" else drawn


def _even(picture: np.ndarray) -> np.ndarray:
    """With even sides, as H.264's colour needs them: a last row or column is repeated."""
    below, right = picture.shape[0] % 2, picture.shape[1] % 2
    if not below and not right:
        return picture
    return cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)


def _require_av() -> ModuleType:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise UserError(f"video needs PyAV ({error}); pip install 't2sda[video]'") from None
