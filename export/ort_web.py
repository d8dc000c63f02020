"""ONNX Runtime for browsers: two files of the npm package onnxruntime-web, checked.

One version is pinned, by the digest that npm publishes: what is put on a page runs there.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from t2sda.data.class_statistics import cache_dir
from t2sda.errors import MissingFileError, UserError
from t2sda.files import is_regular_file, make_writable_dir, read_small_file

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PACKAGE = f"onnxruntime-web@{VERSION}"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""The smallest build: WebAssembly alone; the default one is twice as large."""
LARGEST_ARCHIVE = 1 << 27
NOTICE = f"""{" and ".join(FILES)}
are of onnxruntime-web {VERSION}.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def runtime_files(archive: Path | None = None) -> Mapping[str, bytes]:
    """The files by name.

    Args:
        archive: what `npm pack` writes; by default the one in the cache, which npm fills.

    Raises:
        UserError: if the archive is another one, or neither it nor npm is here.
    """
    archive = archive or _cached()
    content = read_small_file(archive, LARGEST_ARCHIVE)
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != SHA512:
        raise UserError(
            f"{archive}: is not {PACKAGE} as npm publishes it (SHA-512 {found[:12]}…, not "
            f"{SHA512[:12]}…); remove it, and get it with `npm pack {PACKAGE}`"
        )
    with tarfile.open(archive) as opened:
        return {name: _member(opened, f"package/dist/{name}") for name in FILES}


def _member(opened: tarfile.TarFile, name: str) -> bytes:
    file = opened.extractfile(name)
    assert file is not None  # the digest is right
    return file.read()


def _cached() -> Path:
    """The package in the cache, which npm fills.

    Raises:
        UserError: if neither it nor npm is here, or npm fails.
    """
    folder = cache_dir()
    path = folder / ARCHIVE
    if is_regular_file(path):
        return path
    by_hand = f"where there is npm, `npm pack {PACKAGE}`, and give --onnxruntime-web {ARCHIVE}"
    if shutil.which("npm") is None:
        raise MissingFileError(f"{path}: no such file, and npm is not installed here; {by_hand}")
    make_writable_dir(folder, "T2SDA_CACHE")
    command = ["npm", "pack", PACKAGE, "--pack-destination", str(folder), "--silent"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        said = done.stderr.strip()
    except subprocess.TimeoutExpired:
        said = "no answer within ten minutes"
    if not is_regular_file(path):
        raise UserError(f"`{' '.join(command[:3])}` failed ({said[-200:]}); {by_hand}")
    return path
