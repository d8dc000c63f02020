"""A model repository for Triton Inference Server, which KServe and OpenVINO Model Server read too.

REPOSITORY/NAME/config.pbtxt   input, output, batching; the file's metadata as parameters
REPOSITORY/NAME/labels.txt     class names, a line each, in the order of train ids
REPOSITORY/NAME/1/model.onnx   a version; the highest number is served
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from t2sda.errors import UserError
from t2sda.files import atomic_write, is_folder, make_writable_dir, read_small_file, unwritable
from t2sda.runtime.description import Signature
from t2sda.runtime.metadata import Metadata
from t2sda.runtime.onnx_content import external_files, properties_of_onnx
from t2sda.runtime.onnxruntime_file import open_in_onnxruntime
from t2sda.runtime.opened import LoadOptions

from .verify import metadata_of_onnx

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
MAX_BATCH = 8
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}
"""NumPy's names -> Triton's, of what our files take and give."""


class Placed(NamedTuple):
    """Where a file came to lie in a repository."""

    folder: Path
    version: int


def export_triton(
    source: Path, repository: Path, *, name: str | None = None, max_batch: int = MAX_BATCH
) -> Placed:
    """Put an ONNX file of ours into a repository, as the next version of its model.

    Args:
        source: that runs in ONNX Runtime here.
        repository: is made where it is missing.
        name: of the model; by default that of the file.
        max_batch: images that Triton puts together, of a file that takes any number.

    Raises:
        UserError: if the file is not ours, its weights are in other files, the name is none that
            Triton takes, or an earlier version takes or gives something else.
    """
    name = name or source.stem
    if MODEL_NAME.fullmatch(name) is None:
        raise UserError(
            f"--name '{name}': letters, digits, '.', '_' and '-' make a model's name; choose one "
            f"with --name"
        )
    metadata = metadata_of_onnx(source)
    if external_files(source):
        raise UserError(f"{source}: its weights are in other files; export it again as one file")
    opened = open_in_onnxruntime(source, LoadOptions("cpu"))
    assert opened.signature is not None
    config = config_text(name, opened.signature, metadata, properties_of_onnx(source), max_batch)
    make_writable_dir(repository, "--output")
    folder = repository / name
    _check_same(folder, config)
    version = max(_versions(folder), default=0) + 1
    if version == 1:
        atomic_write(
            folder / "labels.txt", "".join(f"{n}\n" for n in metadata.taxonomy.class_names)
        )
        atomic_write(folder / "config.pbtxt", config)
    _place(source, folder / str(version))
    return Placed(folder, version)


def config_text(
    name: str,
    signature: Signature,
    metadata: Metadata,
    properties: dict[str, str],
    max_batch: int,
) -> str:
    """The `config.pbtxt` of a file: protobuf's text format.

    Of a file that takes any number of images Triton puts those of one size together, and counts
    the first axis itself; of one that takes exactly one image all axes are written out.
    """
    batched = signature.input_shape[0] is None
    first = 1 if batched else 0
    taken, given = signature.input_shape[first:], signature.output_shape[first:]
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        f"max_batch_size: {max_batch if batched else 0}",
        *_tensor("input", "images", signature.input_type, taken),
        *_tensor("output", metadata.output_kind, signature.output_type, given),
    ]
    if batched:
        lines.append("dynamic_batching { }")
    for key, value in sorted(properties.items()):
        lines.append(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        )
    return "\n".join(lines) + "\n"


def _tensor(what: str, name: str, kind: str, shape: tuple[int | None, ...]) -> list[str]:
    sizes = ", ".join("-1" if size is None else str(size) for size in shape)
    return [
        f"{what} {{",
        f"  name: {_quoted(name)}",
        f"  data_type: {TYPES[kind]}",
        f"  dims: [ {sizes} ]",
        "}",
    ]


def _quoted(text: str) -> str:
    """A string of protobuf's text format; metadata holds no control characters but in JSON."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _versions(folder: Path) -> list[int]:
    if not is_folder(folder):
        return []
    return [int(own.name) for own in folder.iterdir() if own.name.isdecimal()]


def _check_same(folder: Path, config: str) -> None:
    """All versions share one config.pbtxt: what is not a tensor may differ, names alone remain."""
    path = folder / "config.pbtxt"
    if not path.exists():
        if _versions(folder):
            raise UserError(
                f"{folder}: holds versions and no config.pbtxt, so what they take and give is not "
                f"known; choose another --name"
            )
        return
    old = read_small_file(path, 1 << 22).decode("utf-8", "replace")
    if _interface(old) != _interface(config):
        raise UserError(
            f"{path}: what is there takes or gives something else than this file, or another "
            f"--max-batch, and all versions share that file; choose another --name"
        )


def _interface(config: str) -> list[str]:
    """All but where the weights come from."""
    return [
        line
        for line in config.splitlines()
        if not re.match(r'parameters \{ key: "(digest|origin|versions)"', line)
    ]


def _place(source: Path, folder: Path) -> None:
    """The version's folder appears with its file in it: Triton may look at any time."""
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
            version = Path(partial) / folder.name
            version.mkdir()
            shutil.copyfile(source, version / "model.onnx")
            version.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
