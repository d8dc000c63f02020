"""What tests of `t2sda infer` between URLs share: places, calls, and what is compared."""

from __future__ import annotations

import json
from pathlib import Path

from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from t2sda.cli.main import main
from t2sda.inference.shares import RECORD_NAME
from tests.cli.test_shards import contents
from tests.serving.conftest import noise

IN, OUT = "memory://street", "memory://labels"
NAMES = ("0.png", "bonn/1.png", "bonn/2.PNG", "köln/3 a.png")


def infer(model: Path, source: object, output: object, *options: str) -> int:
    inputs = [] if source is None else ["--input", str(source)]
    own = ["--device", "cpu", "--threads", "1", "--workers", "2", "--kind", "trainid,json"]
    return main(["infer", "--model", str(model), *inputs, "--output", str(output), *own, *options])


def stored(memory: MemoryFileSystem, folder: str = "/labels") -> dict[str, bytes]:
    """Like `contents`, of what lies below `folder`; places in the record are not compared."""
    found = {
        name.removeprefix(f"{folder}/"): memory.cat_file(name)
        for name in memory.find(folder)
        if "/shards/" not in name
    }
    return {**found, RECORD_NAME: without_stamps(found[RECORD_NAME])}


def without_stamps(record: bytes) -> bytes:
    lines = [json.loads(line) for line in record.splitlines()]
    return b"\n".join(sorted(json.dumps({**line, "stamp": 0}).encode() for line in lines))


def local(output: Path) -> dict[str, bytes]:
    found = contents(output)
    return {**found, RECORD_NAME: without_stamps(found[RECORD_NAME])}


def write_png(path: Path, height: int = 20) -> bytes:
    Image.fromarray(noise(height, 30)).save(path, "png")
    return path.read_bytes()
