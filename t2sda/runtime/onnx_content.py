"""What an ONNX file holds, read without any package: weights elsewhere, content, damaged numbers.

A reader of protobuf's wire format over a map of the file, so that neither `onnx` nor a copy of the
weights in memory is needed, and nothing is read elsewhere before it is known to be allowed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2sda.errors import UserError

from .unloadable import again, not_onnx

# Field numbers of onnx.proto: which fields of a message hold messages with tensors in them.
_MODEL = {7: "graph", 20: "training", 25: "function"}
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": _MODEL,
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
        **{22: "sparse", 23: "sparse"},
    },
    "sparse": {1: "tensor", 2: "tensor"},
}
_OPSET, _METADATA = 8, 14  # of a model
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_DOUBLES = 1, 2, 4, 10
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_NOTES = frozenset((12, _TENSOR_EXTERNAL, _TENSOR_LOCATION, 16))
"""Fields of a tensor that say where its numbers lie, and its documentation."""
_FLOAT_TYPES = {1: np.float32, 10: np.float16, 11: np.float64}
_BFLOAT16 = 16
_MAX_DEPTH = 64
_CUT = "the file is cut short or damaged"


class _DamagedError(Exception):
    """What is read is no message of protobuf."""


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a file.

    Attributes:
        name: in the graph.
        data_type: of onnx.proto.
        rest: what describes it, as it is in the file.
        data: its numbers' bytes.
        external: where they are instead: "location", "offset" and "length".
    """

    name: str
    data_type: int
    rest: tuple[bytes, ...]
    data: memoryview
    external: Mapping[str, str]


def properties_of_onnx(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, as text by key; UserError if it is none."""
    found: dict[str, str] = {}
    with _named(path):
        for number, value in _fields(_mapped(path)):
            if number == _METADATA:
                entry = _entry(value)
                found[entry.get(1, "")] = entry.get(2, "")
    return found


def check_external_data(path: Path) -> None:
    """Refuse a file that would read elsewhere than below its folder, before any runtime opens it.

    A link stands for the file that it leads to: caches keep models and weights as links into one
    folder.

    Raises:
        UserError: naming what the file wants to read.
    """
    external_files(path)


def external_files(path: Path) -> list[Path]:
    """Files that weights of an ONNX file lie in, in the order of the graph; raises as above."""
    with _named(path):
        found = [
            _external_path(path, tensor)
            for tensor in _tensors(_mapped(path), "model")
            if tensor.external
        ]
    return list(dict.fromkeys(found))


def content_of(path: Path) -> Iterator[bytes | memoryview]:
    """Graph and weights for a digest: the same wherever the weights lie, without the metadata.

    Raises:
        UserError: if the file is damaged, or weights are not where they should be.
    """
    opened: dict[Path, memoryview] = {}
    with _named(path):
        for number, value in _fields(_mapped(path)):
            if number == _OPSET:
                yield value
            elif number in _MODEL:
                yield from _canonical(value, _MODEL[number], path, opened)


def check_weights(path: Path) -> None:
    """Raise UserError for weights that are no numbers, or infinite: they become labels silently."""
    opened: dict[Path, memoryview] = {}
    with _named(path):
        for tensor in _tensors(_mapped(path), "model"):
            if has_nonsense(_floats(tensor, _data(tensor, path, opened))):
                raise nonsense_in(path, tensor.name)


def nonsense_in(path: Path, weights: str) -> UserError:
    """What is said of weights that `has_nonsense` finds something in."""
    return UserError(
        f"{path}: the weights '{weights}' hold NaN or infinite values, so its labels would mean "
        f"nothing; use another checkpoint or file"
    )


def has_nonsense(numbers: np.ndarray) -> bool:
    """NaN anywhere, or infinity (a mask may hold its negative, a single limit either)."""
    if numbers.size == 0:
        return False
    # A minimum is NaN where any number is, and needs no second array.
    smallest, largest = numbers.min(), numbers.max()
    return bool(np.isnan(smallest) or (numbers.size > 1 and np.isposinf(largest)))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is found damaged within becomes a UserError of the file."""
    try:
        yield
    except _DamagedError as error:
        raise not_onnx(path, str(error)) from None


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, read as they are looked at."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise _DamagedError("it is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, bytes) of every field; bytes of a number are those of its encoding."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, end = _varint(message, place)
        elif kind == 1:
            end = place + 8
        elif kind == 2:
            length, place = _varint(message, place)
            end = place + length
        elif kind == 5:
            end = place + 4
        else:
            raise _DamagedError(_CUT)
        if end > len(message) or tag >> 3 == 0:
            raise _DamagedError(_CUT)
        yield tag >> 3, message[place:end]
        place = end


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise _DamagedError(_CUT)


def _tensors(message: memoryview, kind: str, depth: int = 0) -> Iterator[_Tensor]:
    """Every tensor, however deep: also of constants and of branches."""
    if kind == "tensor":
        yield _tensor(message)
        return
    if depth > _MAX_DEPTH:
        raise _DamagedError("graphs within graphs, too deep")
    inside = _INSIDE[kind]
    for number, value in _fields(message):
        if number in inside:
            yield from _tensors(value, inside[number], depth + 1)


def _canonical(
    message: memoryview, kind: str, path: Path, opened: dict[Path, memoryview]
) -> Iterator[bytes | memoryview]:
    """A graph or function as it is, its tensors with their numbers in place."""
    for number, value in _fields(message):
        yield f"{kind} {number}\n".encode()
        if kind in ("graph", "training") and _INSIDE[kind].get(number) == "tensor":
            tensor = _tensor(value)
            yield from tensor.rest
            yield _data(tensor, path, opened)
        else:
            yield value


def _tensor(message: memoryview) -> _Tensor:
    name, data_type, data = "", 0, memoryview(b"")
    rest: list[bytes] = []
    external: dict[str, str] = {}
    for number, value in _fields(message):
        if number in (_TENSOR_RAW, _TENSOR_FLOATS, _TENSOR_DOUBLES):
            data = value
        elif number == _TENSOR_EXTERNAL:
            entry = _entry(value)
            external[entry.get(1, "")] = entry.get(2, "")
        elif number not in _NOTES:
            rest.append(bytes(value))
        if number == _TENSOR_NAME:
            name = bytes(value).decode(errors="replace")
        elif number == _TENSOR_TYPE:
            data_type = _varint(value, 0)[0]
    return _Tensor(name, data_type, tuple(rest), data, external)


def _entry(message: memoryview) -> dict[int, str]:
    """A key (1) and its value (2)."""
    return {number: bytes(value).decode(errors="replace") for number, value in _fields(message)}


def _external_path(path: Path, tensor: _Tensor) -> Path:
    """Where a tensor's numbers lie; UserError if that is outside the folder, or nowhere."""
    location = tensor.external.get("location", "")
    beside = path.parent / location.replace("\0", "?")
    allowed = {path.parent.resolve(), path.resolve().parent}
    if (
        Path(location).is_absolute()
        or ".." in Path(location).parts
        or not any(beside.resolve().is_relative_to(folder) for folder in allowed)
    ):
        raise UserError(
            f"{path}: wants to read its weights from '{location}', outside its folder; this is "
            f"refused. Export it again into one file"
        )
    try:
        found = beside.is_file()
    except OSError:  # such as a name that no file system takes
        found = False
    if not found:
        raise UserError(
            f"{path}: its weights file '{location}' is not beside it; copy it there, or "
            f"{again(path)}"
        )
    return beside


def _data(tensor: _Tensor, path: Path, opened: dict[Path, memoryview]) -> memoryview:
    if not tensor.external:
        return tensor.data
    beside = _external_path(path, tensor)
    if beside not in opened:
        opened[beside] = _mapped(beside)
    content = opened[beside]
    try:
        offset = int(tensor.external.get("offset", "0"))
        length = int(tensor.external.get("length", len(content) - offset))
    except ValueError:
        raise _DamagedError(_CUT) from None
    if not (0 <= offset <= offset + length <= len(content)):
        raise UserError(
            f"{path}: its weights file '{beside.name}' is shorter than it says; copy it again, or "
            f"{again(path)}"
        )
    return content[offset : offset + length]


def _floats(tensor: _Tensor, data: memoryview) -> np.ndarray:
    """The numbers of a tensor of floats; none of other types."""
    if tensor.data_type == _BFLOAT16:
        words = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2")
        return (words.astype(np.uint32) << 16).view(np.float32)
    number = _FLOAT_TYPES.get(tensor.data_type)
    if number is None:
        return np.empty(0, dtype=np.float32)
    size = np.dtype(number).itemsize
    return np.frombuffer(data[: len(data) // size * size], dtype=number)
