"""Videos: every frame, its time, and whole files or none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from t2sda.data.decode import UnreadableFileError
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UserError
from t2sda.inference.video import (
    LONGEST_SIDE,
    EncodingError,
    VideoReader,
    VideoWriter,
    draw_frame,
    video_path,
)
from tests.deployed import street
from tests.full_disk import file_size_limit

av = pytest.importorskip("av", reason="needs PyAV (pip install 't2sda[video]')")
RATE = Fraction(30000, 1001)


def make_video(path: Path, num_frames: int = 6, size: tuple[int, int] = (64, 96)) -> list:
    frames = [street(size, index) for index in range(num_frames)]
    with VideoWriter(path, RATE, 1 / RATE) as writer:
        for pts, frame in enumerate(frames):
            writer.write(frame, pts)
    return frames


def test_frames_rate_and_times_come_back(tmp_path: Path) -> None:
    frames = make_video(tmp_path / "a.mp4")
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.rate == RATE
    assert reader.num_frames == len(frames)
    found = list(reader)
    assert len(found) == len(frames)
    for frame, expected in zip(found, frames, strict=True):
        assert np.abs(frame.image.astype(int) - expected).mean() < 8  # lossy
    times = np.diff([float(frame.pts * reader.time_base) for frame in found])
    np.testing.assert_allclose(times, float(1 / RATE), rtol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_uneven_times_come_back(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", RATE, 1 / RATE) as writer:
        for pts in (0, 1, 5, 6):
            writer.write(street((64, 96)), pts)
    reader = VideoReader(tmp_path / "a.mp4")
    times = np.diff([float(frame.pts * reader.time_base) for frame in reader])
    np.testing.assert_allclose(times, np.array([1, 4, 1]) / float(RATE), rtol=1e-3)


def test_a_frame_that_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", num_frames=1)
    reader = VideoReader(tmp_path / "a.mp4")
    image = street((64, 96))
    # As FFmpeg has it: the angle by which the frame is turned counterclockwise to be shown.
    on_its_side = SimpleNamespace(pts=0, rotation=-90, to_ndarray=lambda format: image)
    reader._container = SimpleNamespace(decode=lambda stream: [on_its_side], close=lambda: None)
    (frame,) = reader
    assert np.array_equal(frame.image, image[::-1].swapaxes(0, 1))  # clockwise


def test_a_killed_run_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mkv", RATE, 1 / RATE) as writer:
        writer.write(np.zeros((64, 96), np.uint8), 0)
        assert not (tmp_path / "a.mkv").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_train_ids_are_lossless(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 19, (63, 95), dtype=np.uint8)
    with VideoWriter(tmp_path / "a.mkv", RATE, 1 / RATE) as writer:
        writer.write(labels, 0)
    with av.open(str(tmp_path / "a.mkv")) as container:
        (frame,) = container.decode(video=0)
        assert np.array_equal(frame.to_ndarray(format="gray"), labels)


def test_odd_sides_are_made_even(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", num_frames=1, size=(65, 97))
    (frame,) = VideoReader(tmp_path / "a.mp4")
    assert frame.image.shape == (66, 98, 3)


@pytest.mark.parametrize("wide", [False, True])
def test_the_longest_side_that_h264_takes(tmp_path: Path, wide: bool) -> None:
    def write(side: int, name: str) -> None:
        shape = (64, side, 3) if wide else (side, 64, 3)
        with VideoWriter(tmp_path / name, RATE, 1 / RATE) as writer:
            writer.write(np.zeros(shape, np.uint8), 0)

    write(LONGEST_SIDE, "a.mp4")
    with pytest.raises(EncodingError, match=r"b\.mp4: .*16385.*sides up to 16384; .*smaller video"):
        write(LONGEST_SIDE + 1, "b.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    (frame,) = VideoReader(tmp_path / "a.mp4")
    assert max(frame.image.shape) == LONGEST_SIDE


def test_what_an_encoder_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2sda.inference.video.LONGEST_SIDE", 1 << 20)
    with (
        pytest.raises(EncodingError, match=r"a\.mp4: cannot be encoded .*; use another --kind"),
        VideoWriter(tmp_path / "a.mp4", RATE, 1 / RATE) as writer,
    ):
        writer.write(np.zeros((64, LONGEST_SIDE + 2, 3), np.uint8), 0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_file_that_looks_finished(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 192, 3), dtype=np.uint8)

    def write_all() -> None:
        with VideoWriter(tmp_path / "a.mp4", RATE, 1 / RATE) as writer:
            for pts, picture in enumerate(noise):
                writer.write(picture, pts)

    with file_size_limit(60_000), pytest.raises(UserError, match=r"a\.mp4: cannot be written \("):
        write_all()
    assert not list(tmp_path.iterdir())


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("hello")
    with pytest.raises(UnreadableFileError, match=r"notes\.mp4: not a video that can be decoded"):
        VideoReader(tmp_path / "notes.mp4")


def test_a_video_without_frames(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", 12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(UnreadableFileError, match=r"a\.avi: holds no frame"):
        list(VideoReader(tmp_path / "a.avi"))


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr("t2sda.inference.video.importlib.import_module", missing)
    with pytest.raises(UserError, match=r"video needs PyAV .*pip install 't2sda\[video\]'"):
        VideoReader(tmp_path / "a.mp4")


def test_what_a_frame_shows(tmp_path: Path) -> None:
    image, labels = street((64, 96)), np.zeros((64, 96), np.uint8)
    panel = draw_frame(image, labels, CITYSCAPES_19, "panel")
    assert np.array_equal(panel[:, :96], image)
    assert np.array_equal(panel[:, 96:], draw_frame(image, labels, CITYSCAPES_19, "overlay"))
    assert draw_frame(image, labels, CITYSCAPES_19, "trainid") is labels
    assert tuple(draw_frame(image, labels, CITYSCAPES_19, "color")[0, 0]) == (128, 64, 128)
    assert video_path(tmp_path / "a", "trainid").name == "a_trainid.mkv"
