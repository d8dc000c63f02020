"""`t2sda export web`: what is in the site, and what is refused with nothing half-written."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from t2sda.cli import export_web
from t2sda.cli.main import main
from t2sda.data.taxonomies import Taxonomy
from t2sda.export import ort_web
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.onnx_content import properties_of_onnx
from tests.deployed import shared_checkpoint
from tests.full_disk import file_size_limit
from tests.tiny_onnx import SIZE, metadata, tiny_model, write_tiny

OTHER = Taxonomy("two", ("a", "b"), ((0, 0, 0), (1, 1, 1)))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm package of two tiny files, whose digest counts as the right one."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as opened:
        for name in ort_web.FILES:
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(name)
            opened.addfile(info, io.BytesIO(name.encode()))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(ort_web, "SHA512", digest)
    return path


def export(*arguments: Any) -> int:
    return main(["export", "web", *map(str, arguments)])


def test_the_site_holds_all_that_it_needs(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after, before = write_tiny(tmp_path / "a.onnx"), write_tiny(tmp_path / "b.onnx")
    photo = tmp_path / "lund_street.png"
    Image.new("RGB", (9, 9)).save(photo)
    site = tmp_path / "site"
    options = ("--before", before, "--output", site, "--example", photo)
    assert export(after, *options, "--onnxruntime-web", archive) == 0
    assert "http.server" in capsys.readouterr().out
    names = {path.name for path in site.iterdir()}
    assert (site / "adapted.onnx").read_bytes() == after.read_bytes()
    told = json.loads((site / "site.json").read_text())
    assert told["size"] == list(SIZE)
    assert told["fill"] == [100, 110, 120]
    assert [one["name"] for one in told["classes"]][:2] == ["road", "sidewalk"]
    assert told["examples"] == [{"file": "example_1.png", "name": "lund street"}]
    assert {own["file"] for own in (*told["models"], *told["examples"])} < names
    assert "Microsoft" in (site / "NOTICE.txt").read_text()
    for name in ("index.html", "style.css", "app.js", "worker.js", "pixels.js"):
        text = (site / name).read_text(encoding="utf-8")
        assert set(re.findall(r"\"(?:\./)?([\w.-]+\.(?:js|css|mjs|wasm|json))\"", text)) <= names
        assert not re.search(r"https?://[a-z0-9]", text)
    (site / "index.html").write_text("old")
    assert export(after, "--output", site, "--onnxruntime-web", archive) == 0  # made anew
    assert "before.onnx" not in {path.name for path in site.iterdir()}
    assert (site / "index.html").read_text() != "old"


@pytest.mark.slow  # an export
def test_a_checkpoint_is_exported_first(
    archive: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint, site = shared_checkpoint(tmp_path_factory), tmp_path / "site"
    options = ("--output", site, "--size", 64, 96, "--precision", "fp16")
    assert export(checkpoint, *options, "--onnxruntime-web", archive) == 0
    path = site / "adapted.onnx"
    found = Metadata.from_properties(properties_of_onnx(path), path)
    assert (found.image_size, found.output_kind, found.precision) == ((64, 96), "labels", "fp16")


def test_what_the_page_cannot_run_is_refused_and_nothing_is_written(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_tiny(tmp_path / "good.onnx")
    logits = write_tiny(tmp_path / "logits.onnx", tiny_model("logits"))
    foreign = tmp_path / "foreign.onnx"
    onnx.save(tiny_model(properties={"made by": "others"}), foreign)
    two = tiny_model(properties=metadata(taxonomy=OTHER).to_properties())
    other = write_tiny(tmp_path / "two.onnx", two)
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("precious")
    forged = tmp_path / "forged.tgz"
    forged.write_bytes(archive.read_bytes() + b"x")
    site = tmp_path / "below/site"
    for arguments, words in (
        ((logits, "--output", site), "gives logits; the page needs"),
        ((foreign, "--output", site), "did not write"),
        ((good, "--before", other, "--output", site), "both must be the same"),
        ((good, "--output", site, "--example", text), "text.jpg: is no .jpg"),
        ((good, "--output", site, "--example", tmp_path / "none.jpg"), "no such file"),
        ((good, "--output", full), "something else than a site"),
        ((good, "--output", good), "is no folder"),
        ((good, "--output", site, "--size", 64, 96), "--size: "),
        ((good, "--output", site, "--branch", "student"), "--branch: "),
        ((good, "--output", site, "--precision", "fp32"), "--precision: "),
        ((good, "--output", site, "--onnxruntime-web", forged), "as npm publishes it"),
        ((tmp_path / "none", "--output", site), "none"),
    ):
        runtime = () if "--onnxruntime-web" in arguments else ("--onnxruntime-web", archive)
        assert export(*arguments, *runtime) == 2
        assert words in capsys.readouterr().err
    assert not site.exists()
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_where_npm_is_missing_it_says_what_to_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert export(write_tiny(tmp_path / "a.onnx"), "--output", tmp_path / "site") == 2
    assert f"`npm pack {ort_web.PACKAGE}`" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_an_npm_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho E404 >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/bin:/usr/bin")
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    assert export(write_tiny(tmp_path / "a.onnx"), "--output", tmp_path / "site") == 2
    assert "failed (E404)" in capsys.readouterr().err


def test_files_beside_a_site_are_not_removed_with_it(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, site = write_tiny(tmp_path / "good.onnx"), tmp_path / "site"
    command = (good, "--output", site, "--onnxruntime-web", archive)
    assert export(*command) == 0
    (site / ".git").mkdir()
    assert export(*command) == 2
    assert "holds '.git'" in capsys.readouterr().err
    assert (site / ".git").is_dir()


def test_what_is_wrong_with_the_folder_is_said_before_an_export_of_minutes(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    monkeypatch.setattr(export_web, "open_checkpoint", lambda path: pytest.fail("too early"))
    assert export("run", "--output", tmp_path, "--onnxruntime-web", archive) == 2
    assert "something else than a site" in capsys.readouterr().err
    monkeypatch.setenv("T2SDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert export("run", "--output", tmp_path / "site") == 2
    assert "npm is not installed here" in capsys.readouterr().err


def test_a_full_disk_leaves_the_old_site(archive: Path, tmp_path: Path) -> None:
    good, site = write_tiny(tmp_path / "good.onnx"), tmp_path / "site"
    command = (good, "--output", site, "--onnxruntime-web", archive)
    with file_size_limit(1 << 10):
        assert export(*command) == 2
    assert not site.exists()
    assert export(*command) == 0
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    with file_size_limit(1 << 10):
        assert export(*command) == 2
    assert {path.name: path.read_bytes() for path in site.iterdir()} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
