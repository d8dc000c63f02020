"""Video in and out through PyAV: every frame once, with its own time stamp."""

from __future__ import annotations

import contextlib
import importlib
import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import cv2
import numpy as np

from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UnreadableFileError, UserError
from t2sda.files import atomic_writer, unwritable
from t2sda.images.files import check_regular_file, errors_name
from t2sda.inference.visualisation import PLAIN, OverlayStyle, color_map, overlay
from t2sda.resources import is_out_of_memory

VIDEO_KINDS = ("overlay", "color", "trainid", "panel")
QUALITY = "18"
"""Constant rate factor of H.264: hardly distinguishable from the original."""
_ATTACHED_IMAGE = 0x400  # disposition
_UNSPECIFIED = 2  # of color spaces
_BT709, _SMPTE170M, _LIMITED_RANGE = 1, 6, 1
_HD_HEIGHT, _HD_WIDTH = 720, 1280
_MOST_DAMAGED = 10_000
_SAME_RATIO = 0.02
_MISSING_FRAMES = 3
"""At the end; fewer may be an inexact length."""
_TICKS_OF_CONTAINERS = 1_000_000
_FINEST_TIME_BASE = 100_000_000
LONGEST_SIDE = 16384
"""Of an image that libx264 takes."""


class EncodingError(UserError):
    """An encoder refuses this video; others may be taken."""


class Frame(NamedTuple):
    """An image of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, the way up it is meant to be seen.
        pts: its time, in units of the stream's time base.
    """

    image: np.ndarray
    pts: int


class VideoReader:
    """Frames of a file's first film; a cover image is none.

    Damaged packets are left out and the frames around them kept: `faults` says so afterwards.

    Attributes:
        rate: frames a second.
        time_base: seconds that a step of `Frame.pts` stands for.
        num_frames: as the file says; 0 where it does not.
        size: (height, width) as stored.
        faults: what was wrong with the frames that were read, for a user.

    Raises:
        UnreadableFileError: if it is no video.
        UserError: if PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self._av = _require_av()
        with errors_name(path):
            check_regular_file(path)
        try:
            self._container = self._av.open(str(path))
        except self._av.error.FFmpegError as error:
            raise UnreadableFileError(
                f"{path}: not a video that can be decoded ({error})"
            ) from None
        self._stream = self._film()
        alone = len(self._container.streams) == 1  # or a longer sound would count
        duration = self._container.duration if alone else None
        self._container_seconds = None if duration is None else duration / _TICKS_OF_CONTAINERS
        self._first_size: tuple[int, ...] | None = None
        self._stream.thread_type = "AUTO"
        self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self._ticks: Fraction = self._stream.time_base or 1 / self.rate
        self.time_base: Fraction = _fine_time_base(self._ticks, self.rate)
        self.num_frames: int = self._stream.frames
        self.size: tuple[int, int] = (self._stream.height, self._stream.width)

    def __iter__(self) -> Iterator[Frame]:
        """Every frame; raises UnreadableFileError where the file holds none that can be decoded.

        Frames of another size than the first are resized to it, if their ratio is the same.
        """
        first = last = None
        for frame in self._decoded():
            pts = self._fine(frame.pts)
            step = max(round(1 / (self.rate * self.time_base)), 1)
            if last is None:
                first = last = 0 if pts is None else pts
            else:
                last = last + step if pts is None else max(pts, last + 1)
            yield Frame(self._of_first_size(self._upright(frame)), last)
        if first is None or last is None:
            fault = f" ({self.faults[0]})" if self.faults else ""
            raise UnreadableFileError(f"{self.path}: holds no frame that can be decoded{fault}")
        self._note_what_is_missing(float((last - first) * self.time_base + 1 / self.rate))

    def _film(self) -> Any:
        """The first stream that is no cover image."""
        streams = self._container.streams.video
        covers = [int(stream.disposition) & _ATTACHED_IMAGE for stream in streams]
        if not streams or all(covers):
            what = "a cover image alone" if streams else "no frames"
            self._container.close()
            raise UnreadableFileError(
                f"{self.path}: not a video that can be decoded (it holds {what})"
            )
        return streams[covers.index(0)]

    def _decoded(self) -> Iterator[Any]:
        """Frames of every packet that can be decoded; counts the others."""
        damaged = 0
        packets = self._container.demux(self._stream)
        try:
            while True:
                try:
                    packet = next(packets, None)
                    frames = [] if packet is None else packet.decode()
                except self._av.error.FFmpegError as error:
                    if is_out_of_memory(error):
                        raise UserError(f"{self.path}: {error}") from None
                    damaged += 1
                    if damaged > _MOST_DAMAGED:
                        break
                    continue
                if packet is None:
                    break
                for frame in frames:
                    damaged += frame.is_corrupt
                    yield frame
        finally:
            self._container.close()
            if damaged:
                self.faults.append(f"{damaged} damaged packets or frames")

    def _fine(self, pts: int | None) -> int | None:
        """In units of `time_base`; where the file's clock is coarse, by the frame's number."""
        if pts is None:
            return None
        time = pts * self._ticks
        in_rate = round(time * self.rate) / self.rate
        exact = in_rate if abs(in_rate - time) < self._ticks else time
        return round(exact / self.time_base)

    def _upright(self, frame: Any) -> np.ndarray:
        matrix = frame.side_data.get("DISPLAYMATRIX")
        colors = self._av.video.reformatter.Colorspace
        guessed = colors.ITU709 if is_hd(frame.height, frame.width) else colors.ITU601
        unsaid = frame.colorspace == _UNSPECIFIED
        shown = frame.reformat(format="rgb24", src_colorspace=guessed if unsaid else None)
        image = shown.to_ndarray()
        return image if matrix is None else turned_by(np.frombuffer(bytes(matrix), np.int32), image)

    def _of_first_size(self, image: np.ndarray) -> np.ndarray:
        self._first_size = self._first_size or image.shape[:2]
        height, width = self._first_size
        if image.shape[:2] == (height, width):
            return image
        ratio = image.shape[1] / image.shape[0] * height / width
        if abs(ratio - 1) > _SAME_RATIO:
            raise UnreadableFileError(
                f"{self.path}: changes from {height}x{width} to {image.shape[0]}x{image.shape[1]} "
                f"(height x width) in the middle; split it there"
            )
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)

    def _note_what_is_missing(self, seconds: float) -> None:
        """Compare with the length that the file says; an end that is cut off has no other sign."""
        stream = self._stream
        said = stream.metadata.get("DURATION")  # of Matroska
        if stream.duration is not None:
            expected = float(stream.duration * self._ticks)
        elif said is not None and re.fullmatch(r"\d+:\d+:\d+(\.\d+)?", said):
            hours, minutes, rest = said.split(":")
            expected = 3600 * int(hours) + 60 * int(minutes) + float(rest)
        elif self._container_seconds is not None:
            expected = self._container_seconds
        else:
            return
        if expected - seconds > _MISSING_FRAMES / float(self.rate):
            self.faults.append(f"cut short: {seconds:.1f} of {expected:.1f} seconds are there")


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
            partial = after_error.enter_context(atomic_writer(path))
            container_format = "matroska" if self._lossless else "mp4"
            self._container = self._av.open(str(partial), "w", format=container_format)
            self._file = after_error.pop_all()

    def write(self, image: np.ndarray, pts: int) -> None:
        """Append (H, W, 3) uint8 RGB, or (H, W) uint8 to a lossless file.

        Raises:
            EncodingError: if the encoder does not take it, as H.264 longer sides.
            UserError: if the disk is full or the file cannot be written for another reason.
        """
        image = image if self._lossless else self._for_h264(image)
        frame = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image), format="gray" if self._lossless else "rgb24"
        )
        frame.pts, frame.time_base = pts, self._time_base
        with self._named_errors():
            if self._stream is None:
                self._stream = self._new_stream(image.shape)
            if image.shape[:2] != (self._stream.height, self._stream.width):
                raise EncodingError(f"{self.path}: frames of several sizes make no video")
            self._container.mux(self._stream.encode(self._in_colors_of_video(frame)))

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

    def _for_h264(self, image: np.ndarray) -> np.ndarray:
        even = _even(image)
        if max(even.shape[:2]) <= LONGEST_SIDE:
            return even
        raise EncodingError(
            f"{self.path}: {image.shape[0]}x{image.shape[1]} (height x width), and H.264 takes "
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
            tag = _BT709 if is_hd(shape[0], shape[1]) else _SMPTE170M
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = tag
            context.color_range = _LIMITED_RANGE
        return stream

    def _in_colors_of_video(self, frame: Any) -> Any:
        """RGB -> YUV as the stream's tags say; labels stay as they are."""
        if self._lossless:
            return frame
        colors = self._av.video.reformatter.Colorspace
        wanted = colors.ITU709 if is_hd(frame.height, frame.width) else colors.ITU601
        converted = frame.reformat(format="yuv420p", dst_colorspace=wanted)
        converted.pts, converted.time_base = frame.pts, frame.time_base
        return converted

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # FFmpeg's errors of writing are some
            raise unwritable(self.path, error) from None
        except self._av.error.FFmpegError as error:
            raise EncodingError(
                f"{self.path}: cannot be encoded ({error}); use another --kind, or convert the "
                f"video to another size or rate"
            ) from None


def is_hd(height: int, width: int) -> bool:
    """Whether players take the colors of a video that does not say for BT.709's."""
    return height >= _HD_HEIGHT or width >= _HD_WIDTH


def turned_by(matrix: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The image as a display matrix of FFmpeg shows it: quarter turns and mirrors.

    Args:
        matrix: (9,) a b u, c d v, x y w; a pixel (x, y) comes to (a x + c y, b x + d y).
        image: (H, W, 3).
    """
    a, b, c, d = (int(matrix[index]) for index in (0, 1, 3, 4))
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _fine_time_base(ticks: Fraction, rate: Fraction) -> Fraction:
    """In which times of the file and places in its rate are whole."""
    denominator = math.lcm(ticks.denominator, rate.numerator)
    return Fraction(1, denominator) if denominator <= _FINEST_TIME_BASE else ticks


def video_path(target: Path, kind: str) -> Path:
    """Where a kind of result of a video goes: train ids need a lossless file."""
    return target.with_name(f"{target.name}_{kind}{'.mkv' if kind == 'trainid' else '.mp4'}")


def draw_frame(
    image: np.ndarray,
    labels: np.ndarray,
    taxonomy: Taxonomy,
    kind: str,
    style: OverlayStyle = PLAIN,
) -> np.ndarray:
    """What a kind of result shows of a frame; a panel is frame and overlay side by side."""
    if kind == "trainid":
        return labels
    if kind == "color":
        return color_map(labels, taxonomy)
    drawn = overlay(image, labels, taxonomy, style)
    return np.concatenate([image, drawn], axis=1) if kind == "panel" else drawn


def _even(image: np.ndarray) -> np.ndarray:
    """With even sides, as H.264's color needs them: a last row or column is repeated."""
    below, right = image.shape[0] % 2, image.shape[1] % 2
    if not below and not right:
        return image
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)


def _require_av() -> ModuleType:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise UserError(f"video needs PyAV ({error}); pip install 't2sda[video]'") from None
