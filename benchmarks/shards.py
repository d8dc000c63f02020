"""Many small images over shards, and by one process: the same outputs and shares, and the seconds.

Images of noise are labelled by a network of one layer, so what is measured is everything around a
network: finding, decoding, writing, records, and with `--s3` requests to a server on this machine.
The second shard is killed when it has done a part of its images, and started again with `--resume`.

    python -m benchmarks.shards --images 3000
    python -m benchmarks.shards --images 3000 --s3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from t2sda.inference.shares import RECORD_NAME
from tests.tiny_onnx import write_tiny

SIZE = 64


class Row(NamedTuple):
    """A line of the table."""

    what: str
    seconds: float
    num_files: int
    digest: str


def main() -> int:
    """Draw, run, compare, print; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--s3", action="store_true", help="through moto on 127.0.0.1")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = measured(Path(name), args.images, args.shards, by_s3=args.s3)
    print(table(rows))
    return int(len({row.digest for row in rows}) > 1)


def measured(folder: Path, num_images: int, num_shards: int, *, by_s3: bool) -> list[Row]:
    """One process between folders, then shards between folders, and perhaps by S3."""
    model = write_tiny(folder / "tiny.onnx")
    images = draw(folder / "images", num_images)
    rows = []
    seconds = timed(lambda: wait(start(model, str(images), str(folder / "one"))))
    rows.append(row_of("one process", seconds, folder / "one"))
    output = folder / "shards"
    seconds = timed(lambda: sharded(model, str(images), str(output), num_shards, {}))
    rows.append(row_of(f"{num_shards} shards, one killed", seconds, output))
    if by_s3:
        with bucket(images) as environment:
            place, back = "s3://street/labels", folder / "back"
            seconds = timed(
                lambda: sharded(model, "s3://street/images", place, num_shards, environment)
            )
            fetch(place, back, environment)
        rows.append(row_of(f"{num_shards} shards, one killed, S3", seconds, back))
    return rows


def draw(folder: Path, count: int) -> Path:
    """`count` PNGs of noise."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    for index in range(count):
        pixels = dice.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05d}.png")
    return folder


def start(
    model: Path, source: str, output: str, *options: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """`t2sda infer` in a process of its own, with one thread."""
    own = ["--device", "cpu", "--threads", "1", "--workers", "2", "--kind", "trainid"]
    arguments = ["--model", str(model), "--input", source, "--output", output, *own, *options]
    return subprocess.Popen(
        [sys.executable, "-m", "t2sda", "infer", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
    )


def wait(process: subprocess.Popen[bytes]) -> str:
    """Its output; raises if it fails."""
    shown = process.communicate()[0].decode()
    if process.returncode:
        raise SystemExit(f"infer ended with exit code {process.returncode}")
    return shown


def sharded(model: Path, source: str, output: str, count: int, environment: dict[str, str]) -> None:
    """All shards side by side, the second one killed and repeated, then `merge`."""

    def shard(index: int, *options: str) -> subprocess.Popen[bytes]:
        named = ("--shard", f"{index}/{count}", *options)
        return start(model, source, output, *named, environment=environment)

    running = [shard(index) for index in range(1, count + 1)]
    killed = min(1, count - 1)
    lines = running[killed].stdout
    assert lines is not None
    for _ in range(100):  # it says a line for each image
        lines.readline()
    running[killed].kill()
    running[killed].communicate()
    running[killed] = shard(killed + 1, "--resume")
    with ThreadPoolExecutor(count) as pool:  # a pipe that nobody reads would stop its process
        outputs = list(pool.map(wait, running))
    print(outputs[killed].splitlines()[-1])
    merge = [sys.executable, "-m", "t2sda", "merge", output]
    subprocess.run(merge, check=True, env={**os.environ, **environment})


@contextmanager
def bucket(images: Path) -> Iterator[dict[str, str]]:
    """A server with the images in it; yields the environment of who reads there."""
    import fsspec

    from tests import s3

    with s3.serving(s3.FaultyS3()) as address:
        files = fsspec.filesystem("s3", **s3.settings(address, key="any", secret="any"))
        files.mkdir("street")
        files.put(f"{images}/", "s3://street/images", recursive=True, batch_size=4)
        slow = s3.settings(address, key="any", secret="any")
        slow["config_kwargs"] = {"read_timeout": 60}  # all share two cores
        yield {**s3.environment(address), "FSSPEC_S3": json.dumps(slow)}


def fetch(url: str, folder: Path, environment: dict[str, str]) -> None:
    """Everything below a URL, as a folder."""
    import fsspec

    files = fsspec.filesystem("s3", **json.loads(environment["FSSPEC_S3"]))
    files.get(f"{url}/", f"{folder}/", recursive=True)


def row_of(what: str, seconds: float, output: Path) -> Row:
    """With a digest of results and summary; the record counts without its order and places."""
    digest = hashlib.sha256()
    found = (path for path in output.rglob("*") if path.is_file())
    paths = sorted(path for path in found if not _below(path, output).startswith("shards/"))
    for path in paths:
        content = path.read_bytes()
        if path.name == RECORD_NAME:
            lines = [{**json.loads(line), "stamp": 0} for line in content.splitlines()]
            content = "\n".join(sorted(map(json.dumps, lines))).encode()
        digest.update(f"{_below(path, output)}\0".encode() + content)
    return Row(what, seconds, len(paths), digest.hexdigest()[:16])


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def timed(work: Callable[[], object]) -> float:
    """Seconds on the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def table(rows: list[Row]) -> str:
    """As Markdown."""
    lines = ["| run | seconds | files | SHA-256 of all |", "| --- | ---: | ---: | --- |"]
    cells = [(row.what, f"{row.seconds:.0f}", str(row.num_files), row.digest) for row in rows]
    return "\n".join([*lines, *(f"| {' | '.join(own)} |" for own in cells)])


if __name__ == "__main__":
    sys.exit(main())
