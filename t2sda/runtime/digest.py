"""What a model is, whatever its file is called."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .onnx_content import external_files


def digest_of(path: Path) -> str:
    """`sha256:…` of a model's file, as `sha256sum` gives it; where it lies in several, of theirs.

    Raises:
        UserError: if a file that belongs to it is missing.
    """
    digests = [_sha256(part) for part in model_files(path)]
    if len(digests) > 1:
        digests = [hashlib.sha256("".join(digests).encode()).hexdigest()]
    return f"sha256:{digests[0]}"


def model_files(path: Path) -> list[Path]:
    """The file, and those that hold weights of it: of an IR its .bin, of ONNX external data."""
    if path.suffix.lower() == ".xml":
        return [path, path.with_suffix(".bin")]
    return [path, *external_files(path)] if path.suffix.lower() == ".onnx" else [path]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
