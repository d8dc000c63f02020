"""What is said of a model file that does not load: what it is, as far as known, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from t2sda.errors import UserError
from t2sda.files import mistaken_for

_BEGINNING = 4096
_EXPORTS = {
    ".xml": "openvino FILE.onnx",
    ".engine": "tensorrt FILE.onnx",
    ".plan": "tensorrt FILE.onnx",
}
"""What `t2sda export` takes for a file of an ending; ONNX files come from a run."""
_KINDS = (
    (b"PK\x03\x04", "an archive, such as a checkpoint of PyTorch, whose name ends in .pth"),
    (b"\x80", "a pickle, such as an old checkpoint of PyTorch"),
    (b"\x89HDF", "an HDF5 file, such as a model of Keras"),
    (b"<net", "an OpenVINO IR, whose name ends in .xml"),
)
_IR_ROOT = re.compile(rb"<net[\s/>]")
_ORT_PLACE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?")
_ORT_SOURCE = re.compile(r"^/\S+\.(?:cc|h):\d+ .*\) (?=[A-Z])")
_NEWER = (
    *("Unsupported model IR version", "Opset", "opset version", "No Op registered"),
    *("is not a registered function/op", "Could not find an implementation"),
    *("doesn't contain the operation", "Conversion is failed"),
)
"""Words about what this version of a runtime does not know."""


def not_onnx(path: Path, cause: str) -> UserError:
    """The error of a file that is read as ONNX and is none.

    Args:
        path: of the file.
        cause: what was met in it.
    """
    beginning = _beginning(path)
    found = mistaken_for(beginning) or _kind(beginning)
    return UserError(
        f"{path}: not an ONNX file ({f'it is {found}' if found else cause}); {again(path)}"
    )


def check_is_ir(path: Path) -> None:
    """Raise UserError for a file that does not begin as the text of an OpenVINO IR."""
    beginning = _beginning(path)
    if _IR_ROOT.search(beginning):
        return
    start = beginning.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        found = "empty"
    elif start.startswith(b"<?xml"):
        found = "an XML document without a network, perhaps a server's message"
    else:
        found = mistaken_for(beginning) or _kind(beginning) or "no XML"
    raise UserError(f"{path}: not an OpenVINO IR (it is {found}); {again(path)}")


def unloadable(path: object, runtime: str, version: str, cause: str) -> UserError:
    """The error of a file that a runtime refused.

    Args:
        path: of the file, or what messages call it.
        runtime: its name.
        version: of the runtime here.
        cause: its own words.
    """
    cause = _ORT_SOURCE.sub("", _ORT_PLACE.sub("", cause)).strip().rstrip(".")
    advice = again(Path(str(path)))
    if any(words in cause for words in _NEWER):
        advice = f"if the file is for a newer {runtime}, upgrade it, or {advice}"
    return UserError(f"{path}: {runtime} {version} cannot load this file: {cause}; {advice}")


def again(path: Path) -> str:
    """What to do about a file that is damaged, or does not load here."""
    words = _EXPORTS.get(path.suffix.lower(), "onnx RUN")
    return f"export it again (`t2sda export {words} --output {path.name}`)"


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING)


def _kind(beginning: bytes) -> str | None:
    return next((text for mark, text in _KINDS if beginning.startswith(mark)), None)
