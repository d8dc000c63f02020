"""`t2sda infer --shard` and `t2sda merge`: together what one process makes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.files import only_writer
from tests.inference.test_video import damage, streets, write_packets
from tests.serving.conftest import noise
from tests.tiny_onnx import tiny_model, write_tiny

NUM_IMAGES = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "bonn").mkdir(parents=True)
    for index in range(NUM_IMAGES):
        path = folder / f"{'bonn/' * (index % 2)}{index}.png"
        Image.fromarray(noise(20 + index, 30)).save(path)
    return folder


def infer(model: Path, photos: Path, output: Path, *options: str) -> int:
    arguments = ["--model", str(model), "--input", str(photos), "--output", str(output)]
    own = ["--device", "cpu", "--threads", "1", "--workers", "1", "--kind", "trainid"]
    return main(["infer", *arguments, *own, *options])


def contents(folder: Path) -> dict[str, bytes]:
    """Results and summary; the order of the record's lines is not part of it."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "shards" not in path.parts
    }
    found["images.jsonl"] = b"\n".join(sorted(found["images.jsonl"].splitlines()))
    return found


def test_shards_and_one_process_give_the_same(tmp_path: Path, model: Path, photos: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    assert infer(model, photos, one) == 0
    for shard in ("1/3", "2/3", "3/3"):
        assert infer(model, photos, many, "--shard", shard) == 0
    assert main(["merge", str(many)]) == 0
    assert contents(many) == contents(one)
    assert infer(model, photos, many, "--resume") == 0  # the whole is a run like any other


def test_a_shard_that_did_not_end_is_named_and_can_be_resumed(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["merge", str(output)]) == 2
    assert "holds no shards" in capsys.readouterr().err
    assert infer(model, photos, output, "--shard", "1/2") == 0
    assert main(["merge", str(output)]) == 2
    assert "shards 2/2 are missing" in capsys.readouterr().err
    assert infer(model, photos, output, "--shard", "2/2") == 0
    record = output / "shards/2-of-2/images.jsonl"
    (record.parent / "done.json").unlink()  # killed before its end
    record.write_bytes(record.read_bytes()[:-9])
    assert main(["merge", str(output)]) == 2
    assert "shard 2/2 did not come to its end; run it with --resume" in capsys.readouterr().err
    assert not (output / "classes.json").exists()
    assert infer(model, photos, output, "--shard", "2/2", "--resume") == 0
    assert "finished earlier" in capsys.readouterr().out
    assert main(["merge", str(output)]) == 0
    assert len(json.loads((output / "classes.json").read_text())["images"]) == NUM_IMAGES


def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert infer(model, photos, output, "--shard", "1/2") == 0
    assert infer(model, photos, output, "--shard", "1/3") == 2
    assert "holds shards of 2" in capsys.readouterr().err
    other = write_tiny(tmp_path / "other.onnx", tiny_model("logits"))
    assert infer(other, photos, output, "--shard", "2/2") == 0
    assert main(["merge", str(output)]) == 2
    assert "another model than shard 1/2" in capsys.readouterr().err
    with only_writer(output / "shards/1-of-2", "--output"):
        assert infer(model, photos, output) == 2  # the whole, which would meet its files
        assert "shard 1/2 is in work there" in capsys.readouterr().err
        assert infer(model, photos, output, "--shard", "1/2") == 2  # the same one twice
        assert main(["merge", str(output)]) == 2
    assert "shard 1/2 is still in work" in capsys.readouterr().err
    with only_writer(output, "--output"):
        assert infer(model, photos, output, "--shard", "1/2") == 2
    assert "a run without --shard is writing there" in capsys.readouterr().err
    assert infer(model, photos, output, "--shard", "3/2") == 2


def test_shards_of_another_number_beside_those_of_a_run_are_named(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert infer(model, photos, output, "--shard", "1/1") == 0
    (output / "shards/7-of-9").mkdir()  # two began at the same moment
    (output / "shards/01-of-1").mkdir()  # none of ours
    assert main(["merge", str(output)]) == 2
    assert "7-of-9: is none of the 1 shards beside it" in capsys.readouterr().err
    (output / "shards/7-of-9").rmdir()
    assert main(["merge", str(output)]) == 0
    (output / "shards/1-of-1/images.jsonl").write_text("{}\n")
    assert main(["merge", str(output)]) == 2
    assert "images.jsonl: is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("done.json", b""),
        ("done.json", b"{}"),
        ("done.json", b"[]"),
        ("done.json", b"null"),
        ("done.json", b"\xff"),
        ("done.json", b"[" * 100_000),
        ("done.json", {"names": [3]}),
        ("done.json", {"left_out": "1"}),
        ("done.json", {"incomplete": {"a": [1]}}),
        ("done.json", {"incomplete": []}),
        ("done.json", {"palette": [[1, 2]]}),
        ("done.json", {"class_names": ["road"]}),
        ("images.jsonl", None),
        ("images.jsonl", b""),
        ("images.jsonl", b'{"settings": {}'),
        ("images.jsonl", "its first two lines"),
    ],
)
def test_a_damaged_record_of_a_shard_is_named_and_repaired_by_resume(
    tmp_path: Path,
    model: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | str | dict[str, object] | None,
) -> None:
    output = tmp_path / "out"
    assert infer(model, photos / "bonn", output, "--shard", "1/1") == 0
    path = output / "shards/1-of-1" / name
    if isinstance(content, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    elif isinstance(content, str):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    elif content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert main(["merge", str(output)]) == 2
    assert f"{path}: is damaged; run shard 1/1 with --resume" in capsys.readouterr().err
    assert not (output / "classes.json").exists()
    assert infer(model, photos / "bonn", output, "--shard", "1/1", "--resume") == 0
    assert main(["merge", str(output)]) == 0


@pytest.mark.slow  # processes, and hundreds of files that wait for the disk
def test_three_processes_side_by_side_of_which_one_is_killed_make_what_one_makes(
    tmp_path: Path, model: Path
) -> None:
    photos, one, many = tmp_path / "street", tmp_path / "one", tmp_path / "many"
    photos.mkdir()
    for index in range(300):
        Image.fromarray(noise(20 + index % 17, 30)).save(photos / f"{index}.png")
    assert infer(model, photos, one) == 0

    def start(shard: str, *options: str) -> subprocess.Popen[bytes]:
        arguments = ["--model", str(model), "--input", str(photos), "--output", str(many)]
        command = [sys.executable, "-m", "t2sda", "infer", *arguments, "--device", "cpu"]
        own = ["--kind", "trainid", "--workers", "1", "--shard", shard, *options]
        return subprocess.Popen([*command, *own], stdout=subprocess.DEVNULL)

    running = {shard: start(shard) for shard in ("1/3", "2/3", "3/3")}
    try:
        record = many / "shards/2-of-3/images.jsonl"
        limit = time.monotonic() + 100
        while not record.exists() or record.read_bytes().count(b"\n") < 20:
            assert time.monotonic() < limit
            time.sleep(0.01)
        running["2/3"].kill()
        running["2/3"].wait()
        assert record.read_bytes().count(b"\n") < 90  # before its end
        running["2/3"] = start("2/3", "--resume")
        assert [process.wait(100) for process in running.values()] == [0, 0, 0]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert main(["merge", str(many)]) == 0
    assert contents(many) == contents(one)


def test_left_out_files_are_not_forgotten(
    tmp_path: Path, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n none")
    output = tmp_path / "out"
    codes = [infer(model, photos, output, "--shard", shard) for shard in ("1/2", "2/2")]
    assert sorted(codes) == [0, 3]
    assert main(["merge", str(output)]) == 3
    assert "1 files were left out" in capsys.readouterr().out


def test_a_damaged_video_counts_as_in_one_process(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "drive.mp4"
    write_packets(video, streets(9))
    damage(video, 7)
    one, many = tmp_path / "one", tmp_path / "many"
    assert infer(model, video, one) == 3
    assert infer(model, video, many, "--shard", "1/1") == 3
    assert main(["merge", str(many)]) == 3
    assert "1 videos are damaged" in capsys.readouterr().out
    for name in ("classes.json", "images.jsonl", "legend.png"):  # films have names of their own
        assert (many / name).read_bytes() == (one / name).read_bytes()
