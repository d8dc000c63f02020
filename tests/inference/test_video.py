"""Videos: every frame, its time, and whole files or none."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.errors import UnreadableFileError, UserError
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


ONE = 1 << 16
MATRICES = {  # (a, b, c, d): a pixel (x, y) is shown at (a x + c y, b x + d y)
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "mirrored upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "transposed the other way": (
        (0, -1, -1, 0),
        lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    ),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_frame_is_shown_as_its_display_matrix_says(tmp_path: Path, name: str) -> None:
    (a, b, c, d), shown = MATRICES[name]
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48] = 250, 30, 30
    image[32:, 48:] = 30, 30, 250
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", 12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_matrix([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30])
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])
    (found,) = VideoReader(tmp_path / "a.mp4")
    assert found.image.shape == shown(image).shape
    assert np.abs(found.image.astype(int) - shown(image)).mean() < 8  # lossy


def write_packets(path: Path, frames: list, codec: str = "libx264", rate: object = 12) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"g": "5", "bf": "0"}
        for pts, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def streets(count: int, size: tuple[int, int] = (64, 96)) -> list:
    return [street(size, index) for index in range(count)]


def damage(path: Path, *packets: int) -> None:
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for packet in packets:
        place, size = places[packet]
        content[place : place + size] = bytes(size)
    path.write_bytes(content)


@pytest.mark.parametrize("packets", [(7,), (2, 11), (0,)])
def test_a_damaged_packet_costs_no_more_than_its_frames(
    tmp_path: Path, packets: tuple[int, ...]
) -> None:
    path = tmp_path / "a.mp4"
    write_packets(path, streets(15))
    damage(path, *packets)
    reader = VideoReader(path)
    frames = list(reader)
    assert 15 - 5 * len(packets) <= len(frames) <= 15 - len(packets)  # up to the next key frame
    (fault,) = reader.faults
    assert re.fullmatch(r"\d+ damaged packets or frames", fault)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "libvpx-vp9"), ("a.mkv", "mpeg4"), ("a.mkv", "libx264")]
)
def test_a_file_cut_short_is_said(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    write_packets(path, streets(20), codec)
    whole = VideoReader(path)
    assert len(list(whole)) == 20
    assert whole.faults == []
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    cut = VideoReader(path)
    assert len(list(cut)) < 17
    assert any(fault.startswith("cut short: ") for fault in cut.faults)


@pytest.mark.parametrize(
    ("cover_size", "film_size"),
    [((32, 32), (64, 96)), ((600, 400), (64, 96)), ((64, 96), (64, 96))],
)
def test_a_cover_image_is_not_the_film(
    tmp_path: Path, cover_size: tuple[int, int], film_size: tuple[int, int]
) -> None:
    def write(name: str, with_film: bool) -> Path:
        with av.open(str(tmp_path / name), "w") as container:
            cover = container.add_stream("mjpeg", 1)
            (cover.height, cover.width), cover.pix_fmt = cover_size, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            film = container.add_stream("libx264", 12) if with_film else None
            if film:
                (film.height, film.width), film.pix_fmt = film_size, "yuv420p"
            image = np.zeros((*cover_size, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
            container.mux([*cover.encode(frame), *cover.encode()])
            if film:
                for image in streets(3):
                    container.mux(film.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                container.mux(film.encode())
        return tmp_path / name

    frames = list(VideoReader(write("a.mp4", with_film=True)))
    assert [frame.image.shape for frame in frames] == [(*film_size, 3)] * 3
    assert all(frame.image.any() for frame in frames)  # the cover is black
    with pytest.raises(UnreadableFileError, match=r"b\.mp4: .*it holds a cover image alone"):
        VideoReader(write("b.mp4", with_film=False))


@pytest.mark.parametrize(
    ("second", "is_resized"), [((128, 192), True), ((96, 144), True), ((96, 96), False)]
)
def test_a_size_that_changes_in_the_middle(
    tmp_path: Path, second: tuple[int, int], is_resized: bool
) -> None:
    write_packets(tmp_path / "a.ts", streets(4))
    write_packets(tmp_path / "b.ts", streets(4, second))
    content = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "c.ts").write_bytes(content)
    if not is_resized:
        with pytest.raises(UnreadableFileError, match="changes from 64x96 to 96x96 .*; split it"):
            list(VideoReader(tmp_path / "c.ts"))
        return
    frames = list(VideoReader(tmp_path / "c.ts"))
    assert len(frames) >= 7
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}


@pytest.mark.parametrize(("size", "tag"), [((720, 1280), 1), ((64, 96), 6)])
def test_written_videos_say_their_colors(tmp_path: Path, size: tuple[int, int], tag: int) -> None:
    image = np.full((*size, 3), (200, 60, 30), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", RATE, 1 / RATE) as writer:
        writer.write(image, 0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
    assert tags == (tag, tag, tag, 1)
    (frame,) = VideoReader(tmp_path / "a.mp4")
    assert np.abs(frame.image.astype(int) - image).max() <= 4


def test_an_hd_video_that_does_not_say_has_the_colors_of_bt_709(tmp_path: Path) -> None:
    image = np.full((720, 1280, 3), (200, 60, 30), np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", 12)
        stream.height, stream.width, stream.pix_fmt = 720, 1280, "yuv420p"
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        container.mux([*stream.encode(frame), *stream.encode()])
    (found,) = VideoReader(tmp_path / "a.mp4")
    assert np.abs(found.image.astype(int) - image).max() <= 4


@pytest.mark.parametrize(
    "rate", [Fraction(30000, 1001), Fraction(25, 2), Fraction(73, 10), Fraction(2997, 200)]
)
@pytest.mark.parametrize("name", ["in.mkv", "in.mp4"])  # times in milliseconds, and exact ones
def test_odd_rates_are_kept(tmp_path: Path, rate: Fraction, name: str) -> None:
    write_packets(tmp_path / name, streets(9), rate=rate)
    reader = VideoReader(tmp_path / name)
    with VideoWriter(tmp_path / "out.mp4", reader.rate, reader.time_base) as writer:
        for frame in reader:
            writer.write(frame.image, frame.pts)
    assert reader.rate == VideoReader(tmp_path / "out.mp4").rate == rate


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(UnreadableFileError, match=r"a\.mp4: is a pipe"):
        VideoReader(tmp_path / "a.mp4")


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
            for pts, image in enumerate(noise):
                writer.write(image, pts)

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
