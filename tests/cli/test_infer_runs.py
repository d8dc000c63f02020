"""`t2sda infer` on videos, by windows, resumed, interrupted, and with little memory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from t2sda import load_model
from t2sda.cli.main import main
from t2sda.errors import UserError
from t2sda.inference.video import VideoReader, VideoWriter
from t2sda.runtime.predictor import FilePredictor
from tests.deployed import DYNAMIC, DYNAMIC_LOGITS, STATIC, shared_export, street
from tests.full_disk import file_size_limit

RATE = Fraction(12)


@pytest.fixture
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_export(tmp_path_factory, DYNAMIC)


def infer(model: Path, source: Path, output: Path, *options: str) -> int:
    words = ["--model", str(model), "--input", str(source), "--output", str(output)]
    return main(["infer", *words, "--device", "cpu", *options])


def save_streets(folder: Path, count: int, size: tuple[int, int] = (64, 96)) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(street(size, index)).save(folder / f"{index:03d}.png")
    return folder


def make_video(path: Path, num_frames: int = 5) -> None:
    with VideoWriter(path, RATE, 1 / RATE) as writer:
        for pts in range(num_frames):
            writer.write(street((64, 96), pts), pts)


def test_video_keeps_its_rate_and_frames(model_path: Path, tmp_path: Path) -> None:
    make_video(tmp_path / "drive.mp4")
    output = tmp_path / "out"
    assert infer(model_path, tmp_path / "drive.mp4", output, "--kind", "panel,trainid") == 0
    panel = VideoReader(output / "drive_panel.mp4")
    frames = list(panel)
    assert (panel.rate, len(frames)) == (RATE, 5)
    assert frames[0].image.shape == (64, 192, 3)  # side by side
    labels = list(VideoReader(output / "drive_trainid.mkv"))
    first = next(iter(VideoReader(tmp_path / "drive.mp4"))).image
    assert np.array_equal(labels[0].image[..., 0], load_model(model_path).predict(first))
    assert infer(model_path, tmp_path / "drive.mp4", output, "--kind", "labelid") == 2


def test_a_full_disk_in_the_middle_of_a_video(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 192, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "drive.mp4", RATE, 1 / RATE) as writer:
        for pts, image in enumerate(noise):
            writer.write(image, pts)
    output = tmp_path / "out"
    with file_size_limit(60_000):
        assert infer(model_path, tmp_path / "drive.mp4", output, "--kind", "panel") == 2
    error = capsys.readouterr().err
    assert "drive_panel.mp4: cannot be written" in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in output.iterdir()] == ["images.jsonl"]


def test_a_damaged_video_is_left_out_and_the_others_finished(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_streets(tmp_path / "in", 1)
    (folder / "bad.mp4").write_text("hello")
    with av.open(str(folder / "empty.avi"), "w") as container:
        stream = container.add_stream("mpeg4", 12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    assert infer(model_path, folder, tmp_path / "out", "--kind", "overlay") == 3
    error = capsys.readouterr().err
    assert "bad.mp4: not a video that can be decoded" in error
    assert "empty.avi: holds no frame" in error
    assert not list((tmp_path / "out").glob("empty*"))
    assert (tmp_path / "out/000_overlay.png").is_file()


def test_a_video_with_damaged_packets_is_segmented_and_said(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_streets(tmp_path / "in", 1)
    path = folder / "drive.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 12, options={"g": "3", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(street((64, 96), index))))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    content[places[4][0] : sum(places[4])] = bytes(places[4][1])
    path.write_bytes(content)
    for options in ((), ("--resume",)):
        assert infer(model_path, folder, tmp_path / "out", "--kind", "trainid", *options) == 3
        error = capsys.readouterr().err
        assert "damaged, segmented as far as they can be decoded:" in error
        assert re.search(r"drive\.mp4: \d+ damaged packets or frames", error)
    labels = list(VideoReader(tmp_path / "out/drive_trainid.mkv"))
    assert 6 <= len(labels) <= 8
    assert "drive" in json.loads((tmp_path / "out/classes.json").read_text())["images"]


def test_a_video_that_cannot_be_encoded_is_left_out_and_the_others_finished(
    model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("t2sda.inference.video.LONGEST_SIDE", 192)
    folder = save_streets(tmp_path / "in", 1)
    with VideoWriter(folder / "a_wide.mp4", RATE, 1 / RATE) as writer:
        for pts in range(3):
            writer.write(street((64, 98), pts), pts)
    make_video(folder / "b_narrow.mp4")
    assert infer(model_path, folder, tmp_path / "out", "--kind", "panel,trainid") == 3
    error = capsys.readouterr().err
    assert "1 files were left out" in error
    assert "a_wide_panel.mp4: 64x196 (height x width), and H.264 takes sides up to 192" in error
    names = {path.name for path in (tmp_path / "out").glob("*_*")}
    results = {"000_panel.png", "000_trainid.png", "b_narrow_panel.mp4", "b_narrow_trainid.mkv"}
    assert names == results


def test_shares_of_classes_as_json(model_path: Path, tmp_path: Path) -> None:
    folder = save_streets(tmp_path / "in", 2)
    assert infer(model_path, folder, tmp_path / "out", "--kind", "trainid") == 0
    shares = json.loads((tmp_path / "out/classes.json").read_text())
    labels = np.asarray(Image.open(tmp_path / "out/000_trainid.png"))
    for index, entry in enumerate(shares["classes"]):
        assert entry["train_id"] == index
        share = shares["images"]["000"].get(entry["name"], 0)
        assert share == pytest.approx((labels == index).mean(), abs=1e-5)
    assert sum(entry["share"] for entry in shares["classes"]) == pytest.approx(1, abs=1e-4)


def test_resume_does_what_is_missing_and_nothing_else(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = save_streets(tmp_path / "in", 3), tmp_path / "out"
    assert infer(model_path, folder, output, "--kind", "trainid") == 0
    whole = (output / "classes.json").read_text()
    old = (output / "000_trainid.png").stat().st_mtime_ns
    (output / "001_trainid.png").unlink()
    record = output / "images.jsonl"
    record.write_text(record.read_text()[:-20])  # torn by a kill while the third was noted
    assert infer(model_path, folder, output, "--kind", "trainid", "--resume") == 0
    assert "2 images in" in (text := capsys.readouterr().out)
    assert "1 finished earlier" in text
    assert (output / "000_trainid.png").stat().st_mtime_ns == old
    assert (output / "001_trainid.png").is_file()
    assert (output / "classes.json").read_text() == whole
    assert infer(model_path, folder, output, "--kind", "color", "--resume") == 2
    assert "choose another output folder, or leave out --resume" in capsys.readouterr().err


def test_resume_mixes_neither_models_nor_images(
    model_path: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, output = save_streets(tmp_path / "in", 2), tmp_path / "out"
    again = ("--kind", "trainid", "--resume")
    assert infer(model_path, folder, output, *again[:2]) == 0
    Image.fromarray(street((64, 64))).save(folder / "000.png")  # another of the same name
    assert infer(model_path, folder, output, *again) == 0
    assert "1 finished earlier" in capsys.readouterr().out
    assert np.asarray(Image.open(output / "000_trainid.png")).shape == (64, 64)
    other = tmp_path / model_path.name
    other.write_bytes(shared_export(tmp_path_factory, STATIC).read_bytes())
    assert infer(other, folder, output, *again) == 2
    assert "choose another output folder, or leave out --resume" in capsys.readouterr().err
    (output / "images.jsonl").write_text('[1]\n{"name": 5}\n')  # none of ours
    assert infer(model_path, folder, output, *again) == 0


def test_batches_change_nothing(model_path: Path, tmp_path: Path) -> None:
    folder = save_streets(tmp_path / "in", 5)
    for output, options in (("a", ()), ("b", ("--batch", "2", "--workers", "2"))):
        assert infer(model_path, folder, tmp_path / output, "--kind", "trainid", *options) == 0
    for index in range(5):
        name = f"{index:03d}_trainid.png"
        one, two = (np.asarray(Image.open(tmp_path / output / name)) for output in "ab")
        assert (one != two).mean() < 1e-3  # sums in another order


def test_frames_of_a_video_go_through_the_network_in_batches(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VideoWriter(tmp_path / "drive.mp4", RATE, 1 / RATE) as writer:
        for index, pts in enumerate((0, 1, 5, 6, 8)):
            writer.write(street((64, 96), index), pts)
    model = load_model(model_path)
    assert isinstance(model, FilePredictor)
    seen: list[int] = []
    run = model.run

    def watched(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return run(images)

    monkeypatch.setattr(model, "run", watched)
    monkeypatch.setattr("t2sda.cli.infer.load_model", lambda *_, **__: model)
    found = {}
    for size, batches in (("1", [1] * 5), ("2", [2, 2, 1])):
        seen.clear()
        options = ("--kind", "trainid", "--batch", size, "--workers", "1")
        assert infer(model_path, tmp_path / "drive.mp4", tmp_path / size, *options) == 0
        assert seen == batches
        found[size] = list(VideoReader(tmp_path / size / "drive_trainid.mkv"))
    for one, two in zip(found["1"], found["2"], strict=True):
        assert one.pts == two.pts
        assert (one.image != two.image).mean() < 1e-3  # sums in another order


def test_a_static_file_takes_no_batches_and_its_own_window(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    static, folder = shared_export(tmp_path_factory, STATIC), save_streets(tmp_path / "in", 2)
    for options, message in (
        (("--batch", "2"), "batches of 2: this file takes at most 1 at once"),
        (("--window", "64", "64"), "takes images of 96x160 only; use --window 96 160"),
        (("--stride", "64", "64"), "--stride: there is no window to move"),
    ):
        assert infer(static, folder, tmp_path / "out", *options) == 2
        assert message in capsys.readouterr().err


def test_probabilities(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    logits = shared_export(tmp_path_factory, DYNAMIC_LOGITS)
    folder = save_streets(tmp_path / "in", 1)
    kinds = ("--kind", "probabilities,trainid")
    assert infer(logits, folder, tmp_path / "out", *kinds) == 0
    probabilities = np.load(tmp_path / "out/000_probabilities.npy")
    labels = np.asarray(Image.open(tmp_path / "out/000_trainid.png"))
    np.testing.assert_allclose(probabilities.astype(float).sum(axis=0), 1, atol=0.01)
    assert (probabilities.argmax(axis=0) == labels).mean() > 0.999  # float16 makes ties
    assert np.array_equal(labels, load_model(logits).predict(folder / "000.png"))


def test_one_pixel(model_path: Path, tmp_path: Path) -> None:
    folder = save_streets(tmp_path / "in", 1, size=(64, 64))
    Image.new("RGB", (1, 1), (120, 130, 140)).save(folder / "000.png")
    assert infer(model_path, folder, tmp_path / "out", "--kind", "trainid,overlay,panel") == 0
    assert np.asarray(Image.open(tmp_path / "out/000_trainid.png")).shape == (1, 1)


def test_a_panorama_needs_the_memory_of_its_window(model_path: Path, tmp_path: Path) -> None:
    Image.fromarray(np.tile(street((96, 160)), (1, 125, 1))).save(tmp_path / "wide.png")
    seen: list[tuple[int, ...]] = []
    model = load_model(model_path)

    class Watched:
        taxonomy = model.taxonomy
        output_kind = "labels"
        max_batch_size = None

        def predict(self, images: list[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
            seen.extend(image.shape for image in images)
            return model.predict(images, batch_size)

        def probabilities(self, images: list[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
            raise AssertionError("not asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("t2sda.cli.infer.load_model", lambda *_, **__: Watched())
        window = ("--window", "96", "160", "--stride", "96", "160")
        assert (
            infer(model_path, tmp_path / "wide.png", tmp_path / "out", "--kind", "trainid", *window)
            == 0
        )
    labels = np.asarray(Image.open(tmp_path / "out/wide_trainid.png"))
    assert labels.shape == (96, 20_000)
    assert set(seen) == {(96, 160, 3)}  # never more at once
    assert np.array_equal(labels[:, :160], labels[:, -160:])


class LittleMemory:
    """A model that has memory for `max_pixels` at once, of all images of a batch."""

    output_kind = "labels"
    max_batch_size = None

    def __init__(self, path: Path, error: Exception, max_pixels: int) -> None:
        self._model = load_model(path)
        self._error = error
        self._max_pixels = max_pixels
        self.taxonomy = self._model.taxonomy

    def predict(self, images: list[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        if sum(image.shape[0] * image.shape[1] for image in images) > self._max_pixels:
            raise self._error
        return self._model.predict(images, batch_size)

    def probabilities(self, images: list[np.ndarray], batch_size: int = 1) -> list[np.ndarray]:
        raise AssertionError("not asked for")


@pytest.mark.parametrize("batch", ["1", "3"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        UserError("ONNX Runtime cannot run images of shape (1, 9, 9, 3): std::bad_alloc"),
        MemoryError(),
    ],
    ids=["torch", "runtime", "numpy"],
)
def test_what_memory_is_short_for_is_left_out_and_the_others_finished(
    model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    batch: str,
) -> None:
    folder, output = save_streets(tmp_path / "in", 4), tmp_path / "out"
    Image.fromarray(street((64, 192))).save(folder / "001.png")
    with VideoWriter(folder / "wide.mp4", RATE, 1 / RATE) as writer:
        writer.write(street((64, 194)), 0)
    model = LittleMemory(model_path, error, max_pixels=64 * 96)  # not even for two small ones
    monkeypatch.setattr("t2sda.cli.infer.load_model", lambda *_, **__: model)
    options = ("--kind", "color", "--batch", batch)
    assert infer(model_path, folder, output, *options) == 3
    captured = capsys.readouterr()
    assert "3 images in" in captured.out
    heading, *reasons = captured.err.splitlines()
    assert heading == "2 files were left out:"
    assert [reason.strip() for reason in reasons] == [
        f"{folder}/{name}, height x width): needs more memory than there is; "
        f"use --window HEIGHT WIDTH, a smaller --batch, fewer --workers, or a smaller image"
        for name in ("001.png (64x192", "wide.mp4 (64x194")
    ]
    names = {path.name for path in output.glob("*_color*")}
    assert names == {f"{name}_color.png" for name in ("000", "002", "003")}
    by_windows = ("--window", "64", "96")
    assert infer(model_path, folder, tmp_path / "windows", "--kind", "color", *by_windows) == 0


def test_by_windows_a_smaller_window_is_advised(
    model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_streets(tmp_path / "in", 1)
    model = LittleMemory(model_path, MemoryError(), max_pixels=64 * 64)
    monkeypatch.setattr("t2sda.cli.infer.load_model", lambda *_, **__: model)
    assert infer(model_path, folder, tmp_path / "out", "--window", "64", "80") == 3
    assert "use a smaller --window, a smaller --batch, " in capsys.readouterr().err


def test_a_image_larger_than_memory(
    model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_streets(tmp_path / "in", 2)
    Image.new("RGB", (64, 64)).save(folder / "huge.bmp")

    def load(image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    assert infer(model_path, folder, tmp_path / "out", "--kind", "color", "--batch", "3") == 3
    assert "huge.bmp: needs more memory than there is" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*_color.png"))) == 2


def test_a_decompression_bomb_is_left_out(
    model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_streets(tmp_path / "in", 1)
    Image.new("RGB", (300, 300)).save(folder / "bomb.png")
    monkeypatch.setattr("t2sda.images.files.MAX_PIXELS", 64 * 96)
    assert infer(model_path, folder, tmp_path / "out", "--kind", "trainid") == 3
    assert "bomb.png: 300x300" in capsys.readouterr().err
    assert (tmp_path / "out/000_trainid.png").is_file()


def test_after_ctrl_c_finished_files_are_whole(model_path: Path, tmp_path: Path) -> None:
    folder, output = save_streets(tmp_path / "in", 2), tmp_path / "out"
    count = 4000  # seconds of work, however late the signal comes
    for index in range(2, count):
        (folder / f"{index:04d}.png").symlink_to(folder / "000.png")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "t2sda", "infer", "--model", str(model_path)),
            *("--input", str(folder), "--output", str(output), "--device", "cpu"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background jobs ignore Ctrl-C, and so does what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while len(list(output.glob("*_trainid.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.strip() == "interrupted"
    assert not list(output.glob("*.partial"))
    written = list(output.glob("*.png"))
    assert 9 <= len(written) < 3 * count
    for path in written:
        Image.open(path).load()
