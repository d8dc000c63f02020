"""The site of the documentation, the tutorial's service, the samples in other languages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2sda import load_model
from t2sda.export.openvino import export_openvino
from tests.test_readme import ROOT, Block, blocks_of, commands_of
from tests.tiny_onnx import SIZE, write_tiny

PHOTO = ROOT / "docs/demo/lund_street_01.jpg"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_site_is_built_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {page for page in pages if not (tmp_path / page / "index.html").is_file()} == set()
    assert 'href="../configs/' not in (tmp_path / "reproducing/index.html").read_text()


def block(page: str, beginning: str) -> Block:
    """The one block of a page that begins so."""
    (found,) = (b for b in blocks_of(ROOT / "docs" / page) if b.text.startswith(beginning))
    return found


def test_the_tutorial_takes_six_commands() -> None:
    blocks = blocks_of(ROOT / "docs/tutorial.md")
    commands = [line for b in blocks if b.language in ("bash", "text") for line in commands_of(b)]
    assert len(commands) <= 6
    assert commands[-1] == "python service.py"


def test_the_tutorials_service_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "harbour.onnx")
    names: dict[str, Any] = {"__name__": "service"}
    exec(compile(block("tutorial.md", "# service.py").text, "service.py", "exec"), names)
    names["Service"].log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), names["Service"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with urllib.request.urlopen(address, PHOTO.read_bytes()) as answer:
            found = json.load(answer)
        labels = load_model(tmp_path / "harbour.onnx").predict(PHOTO)
        assert found["size"] == list(labels.shape)
        assert sum(item["pixels"] for item in found["classes"]) == labels.size
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(address, b"no image")
        assert "image given as bytes" in json.load(refused.value)["error"]
    finally:
        server.shutdown()
        server.server_close()


def pixels(folder: Path) -> np.ndarray:
    """An image, as raw bytes in `pixels.raw`."""
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    (folder / "pixels.raw").write_bytes(image.tobytes())
    return image


@pytest.mark.slow
def test_the_sample_in_cpp(tmp_path: Path) -> None:
    openvino = Path(str(find_spec("openvino").origin)).parent  # type: ignore[union-attr]
    compiler = shutil.which("g++")
    if compiler is None or not (openvino / "include").is_dir():
        pytest.skip("needs g++ and the headers in OpenVINO's package")
    onnx = write_tiny(tmp_path / "student.onnx")
    export_openvino(onnx, tmp_path / "student.xml", precision="fp32")
    image = pixels(tmp_path)
    include, *lines = block("samples.md", "#include").text.splitlines()
    source = [include, "#include <cstdio>", "#include <vector>", "int main() {"]
    source += [f"const size_t height = {SIZE[0]}, width = {SIZE[1]};"]
    source += ["std::vector<uint8_t> content(height * width * 3);"]
    source += ['FILE* file = fopen("pixels.raw", "rb");']
    source += ["if (fread(content.data(), 1, content.size(), file) != content.size()) return 1;"]
    source += ["uint8_t* pixels = content.data();", *lines]
    source += ["fwrite(labels, 1, height * width, stdout);", "}"]
    (tmp_path / "main.cpp").write_text("\n".join(source))
    libraries = openvino / "libs"
    (library,) = libraries.glob("libopenvino.so.*")
    command = [compiler, "-std=c++17", f"-I{openvino / 'include'}", "main.cpp", str(library)]
    subprocess.run([*command, "-o", "main"], cwd=tmp_path, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run([tmp_path / "main"], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    labels = np.frombuffer(done.stdout, dtype=np.uint8).reshape(SIZE)
    assert np.array_equal(labels, load_model(tmp_path / "student.xml").predict(image))


def test_the_sample_in_javascript(tmp_path: Path) -> None:
    node = shutil.which("node")
    resolved = ["-e", "require.resolve('onnxruntime-node')"]
    if node is None or subprocess.run([node, *resolved], capture_output=True).returncode:
        pytest.skip("needs node and its package onnxruntime-node, by NODE_PATH")
    write_tiny(tmp_path / "student.onnx")
    image = pixels(tmp_path)
    first, *lines = block("samples.md", "const ort").text.splitlines()
    source = [first, "(async () => {", f"const [height, width] = [{SIZE[0]}, {SIZE[1]}];"]
    source += ["const pixels = new Uint8Array(require('fs').readFileSync('pixels.raw'));"]
    source += [*lines[:-1], "process.stdout.write(JSON.stringify([...labels.data]));", "})();"]
    (tmp_path / "main.js").write_text("\n".join(source))
    done = subprocess.run([node, "main.js"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels = np.array(json.loads(done.stdout), dtype=np.uint8).reshape(SIZE)
    assert np.array_equal(labels, load_model(tmp_path / "student.onnx").predict(image))


@pytest.mark.slow  # a cluster of one machine
@pytest.mark.skipif(find_spec("ray") is None, reason="needs `pip install 'ray[data]'`")
def test_the_pipeline_of_ray_data(tmp_path: Path) -> None:
    model = load_model(write_tiny(tmp_path / "student.onnx"))
    (tmp_path / "photos").mkdir()
    dice = np.random.default_rng(0)
    for index in range(5):
        image = dice.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"photos/{index}.png")
    (tmp_path / "main.py").write_text(block("nodes.md", "from pathlib").text)
    # On its own it asks for a token, and gives a busy machine 30 s to start.
    ray = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    more = {"RAY_raylet_start_wait_time_s": "240", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, **ray, **more},
        capture_output=True,
        text=True,
    )
    if "timed out during startup" in done.stderr:
        pytest.skip("Ray does not start here")
    assert done.returncode == 0, done.stderr
    for index in range(5):
        written = np.asarray(Image.open(tmp_path / f"labels/{index}.png"))
        assert np.array_equal(written, model.predict(tmp_path / f"photos/{index}.png"))
