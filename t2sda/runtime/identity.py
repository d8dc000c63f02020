"""Which network a file is, whatever it is called and wherever its weights lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from .onnx_content import content_of, properties_of_onnx
from .tensorrt_file import ENGINE_SUFFIXES, sidecar_of

_PART = 1 << 20


def model_digest(path: Path) -> str:
    """SHA-256 of graph, weights and metadata, those in files beside it too.

    Args:
        path: a file that `load_model` takes, which was loaded already.
    Raises:
        UserError: if weights that an ONNX file names are not there.
    """
    digest = hashlib.sha256()
    for part in _parts(path):
        digest.update(part)
    return digest.hexdigest()


def _parts(path: Path) -> Iterator[bytes | memoryview]:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        yield json.dumps(properties_of_onnx(path), sort_keys=True).encode()
        yield from content_of(path)
        return
    files = [path]
    if suffix == ".xml":
        files.append(path.with_suffix(".bin"))
    elif suffix in ENGINE_SUFFIXES:
        files.append(sidecar_of(path))
    for file in files:
        with file.open("rb") as content:
            while part := content.read(_PART):
                yield part
