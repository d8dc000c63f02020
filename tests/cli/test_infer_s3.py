"""`t2sda infer` and `merge` on S3 that fails, against local runs; moto takes seconds to import."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec.config
import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.inference import remote
from t2sda.inference.shares import RECORD_NAME
from tests import s3
from tests.cli.urls import infer, local, without_stamps
from tests.serving.conftest import noise

pytestmark = pytest.mark.slow
IN, OUT = "s3://street/images", "s3://street/labels"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[s3.FaultyS3, str]]:
    app = s3.FaultyS3()
    with s3.serving(app) as address:
        yield app, address


@pytest.fixture
def store(served: tuple[s3.FaultyS3, str], monkeypatch: pytest.MonkeyPatch) -> s3.FaultyS3:
    """Empty but for the bucket; fsspec's settings are those of a process with credentials."""
    app, address = served
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.NO_OTHER_ADDRESS.items():
        monkeypatch.setenv(name, value)
    own = s3.settings(address, key="any", secret="any")
    monkeypatch.setitem(fsspec.config.conf, "s3", own)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    app.faults, app.refused = {}, ()
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    if files.exists("street"):
        files.rm("street", recursive=True)
    files.mkdir("street")
    app.seen.clear()
    app.failed.clear()
    return app


def street(folder: Path, count: int) -> Path:
    """Images in a folder and in the bucket."""
    for index in range(count):
        path = folder / f"{'bonn/' * (index % 2)}{index} ä.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(20 + index % 7, 30)).save(path)
    fsspec.filesystem("s3", skip_instance_cache=True).put(
        f"{folder}/", IN, recursive=True, ACL="public-read"
    )
    return folder


def stored(store: s3.FaultyS3) -> dict[str, bytes]:
    """Results and summary in the bucket, as `local` has them of a folder."""
    found = {
        name.removeprefix("street/labels/"): content
        for name, content in store.objects.items()
        if name.startswith("street/labels/") and "/shards/" not in name
    }
    return {**found, RECORD_NAME: without_stamps(found[RECORD_NAME])}


def test_a_store_that_fails_in_every_way_gives_the_bytes_of_a_local_run(
    tmp_path: Path, model: Path, store: s3.FaultyS3
) -> None:
    photos = street(tmp_path / "photos", 6)
    assert infer(model, photos, tmp_path / "out") == 0
    store.seen.clear()
    store.faults = {
        "GET": ("500", "hang", "cut", "short"),
        "PUT": ("500", "hang"),
        "HEAD": ("500",),
    }
    assert infer(model, IN, OUT) == 0
    assert stored(store) == local(tmp_path / "out")
    for kind in ("500", "hang", "cut", "short"):
        assert store.failed["GET", kind] >= 6, kind
    assert store.failed["PUT", "500"] >= 2 * 6
    assert store.failed["PUT", "hang"] >= 2 * 6
    store.seen.clear()
    assert infer(model, IN, OUT, "--resume") == 0
    assert stored(store) == local(tmp_path / "out")


def test_an_upload_that_hangs_is_given_up_and_begun_again(
    tmp_path: Path, model: Path, store: s3.FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = street(tmp_path / "photos", 1)
    assert infer(model, photos, tmp_path / "out") == 0
    store.seen.clear()
    monkeypatch.setattr(remote, "LONGEST_SILENCE", 2.0)
    store.faults = {"PUT": ("silent",)}
    began = time.monotonic()
    assert infer(model, IN, tmp_path / "out2") == 0  # nothing is uploaded
    assert infer(model, IN, OUT) == 0
    assert stored(store) == local(tmp_path / "out")
    assert store.failed["PUT", "silent"] >= 3
    assert time.monotonic() - began < s3.SILENCE


def test_an_error_that_stays_leaves_images_out_and_ends_a_write(
    tmp_path: Path, model: Path, store: s3.FaultyS3, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = street(tmp_path / "photos", 3)
    store.refused = ("PUT",)
    assert infer(model, IN, OUT) == 2
    shown = capsys.readouterr().err
    assert f"error: {OUT}/{RECORD_NAME}: cannot be written (Access Denied); credentials" in shown
    assert not [name for name in store.objects if "labels" in name]
    store.refused = ()
    assert infer(model, IN, OUT) == 0
    assert infer(model, photos, tmp_path / "out") == 0
    assert stored(store) == local(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IN.replace("street/", "none/"), OUT), "s3://none/images: is not there"),
        ((IN, "s3://none/labels"), "s3://none/labels/images.jsonl: cannot be written (The spec"),
        (("s3://street/none", OUT), "s3://street/none: is not there"),
    ],
)
def test_what_is_not_there(
    arguments: tuple[str, str],
    message: str,
    tmp_path: Path,
    model: Path,
    store: s3.FaultyS3,
    capsys: pytest.CaptureFixture[str],
) -> None:
    street(tmp_path / "photos", 1)
    assert infer(model, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not [name for name in store.objects if "labels" in name]


@pytest.mark.parametrize("verb", ["infer", "merge"])
def test_no_credentials(
    verb: str,
    tmp_path: Path,
    model: Path,
    served: tuple[s3.FaultyS3, str],
    store: s3.FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", s3.settings(served[1]))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    assert (infer(model, IN, tmp_path / "out") if verb == "infer" else main(["merge", OUT])) == 2
    shown = capsys.readouterr().err
    assert "cannot be listed (" in shown
    assert "credentials come from the environment, see docs/nodes.md" in shown
    assert not (tmp_path / "out").exists()


def test_a_public_bucket_is_read_without_credentials(
    tmp_path: Path,
    model: Path,
    served: tuple[s3.FaultyS3, str],
    store: s3.FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = street(tmp_path / "photos", 2)
    monkeypatch.setitem(fsspec.config.conf, "s3", s3.settings(served[1], anon="1"))
    assert infer(model, IN, tmp_path / "out") == 0
    assert infer(model, photos, tmp_path / "there") == 0
    assert local(tmp_path / "out") == local(tmp_path / "there")


def test_three_shards_of_which_one_is_killed_make_what_one_process_makes(
    tmp_path: Path, model: Path, served: tuple[s3.FaultyS3, str], store: s3.FaultyS3
) -> None:
    photos = street(tmp_path / "photos", 45)
    assert infer(model, photos, tmp_path / "out") == 0
    expected = local(tmp_path / "out")

    def start(shard: str, *options: str) -> subprocess.Popen[bytes]:
        arguments = ["--model", str(model), "--input", IN, "--output", OUT, "--shard", shard]
        own = ["--device", "cpu", "--threads", "1", "--workers", "2", "--kind", "trainid,json"]
        return subprocess.Popen(
            [sys.executable, "-m", "t2sda", "infer", *arguments, *own, *options],
            env={**os.environ, **s3.environment(served[1])},
            stdout=subprocess.DEVNULL,
        )

    running = {shard: start(shard) for shard in ("1/3", "2/3", "3/3")}
    try:
        limit = time.monotonic() + 200
        while sum("/labels/" in name for name in store.objects) < 20:
            assert time.monotonic() < limit
            time.sleep(0.05)
        running["2/3"].kill()
        running["2/3"].wait()
        made = {name: content for name, content in store.objects.items() if "_trainid" in name}
        for name, content in made.items():  # nothing is half-written, at any time
            assert expected[name.removeprefix("street/labels/")] == content
        assert main(["merge", OUT]) == 2
        running["2/3"] = start("2/3", "--resume")
        assert [process.wait(300) for process in running.values()] == [0, 0, 0]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert main(["merge", OUT]) == 0
    assert stored(store) == expected
