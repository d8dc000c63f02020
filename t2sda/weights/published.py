"""Reading what others wrote: tensors alone. Nothing in a file is ever executed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from t2sda.errors import UserError
from t2sda.files import is_folder, open_regular
from t2sda.weights.sources import SUFFIXES, read_safetensors
from t2sda.weights.torch_files import OWN_MARK, DamagedFileError, read_torch_file

_WRAPPERS = ("state_dict", "model_state_dict")
_NETWORKS = ("model", "ema_model")  # a state dict each, of training scripts that keep two
_WRAPPED_BY_TORCH = re.compile(r"^((?:module|_orig_mod)\.)+")
"""What DistributedDataParallel and `torch.compile` put before every name."""
_HARMLESS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int64DType",
    "_codecs.encode",
)
"""What training frameworks put beside the tensors; it is passed over."""


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: of the file.
        sha256: of all of it.
        tensors: by name; those of several networks have the name of theirs in front.
        others: what else there is, in words.
        wrappers: what torch had put before names, such as "module."; they are left out.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    others: dict[str, str]
    wrappers: tuple[str, ...] = ()


class OwnCheckpointError(UserError):
    """A checkpoint of t2sda, which needs no import."""


def read_weight_file(path: Path) -> WeightFile:
    """Tensors of a .safetensors file or of a file of `torch.save`; in memory as they are used.

    Raises:
        MissingFileError: if there is none.
        OwnCheckpointError: if it is a checkpoint of ours.
        UserError: if it cannot be read, holds no tensors, or would run code.
    """
    if is_folder(path):
        files = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
        found = f"{path / files[0]}" if files else f"a file that ends in {', '.join(SUFFIXES)}"
        raise UserError(f"{path}: is a folder, not a file; give {found}")
    open_regular(path).close()
    is_safe = path.suffix == ".safetensors"
    content = read_safetensors(path) if is_safe else _read_pickle(path)
    tensors, others, wrappers = _sorted_out(path, content)
    return WeightFile(path, sha256_of(path), tensors, others, wrappers)


def sha256_of(path: Path) -> str:
    """Of the content of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_pickle(path: Path) -> Any:
    try:
        return read_torch_file(path, any_writer=True, harmless=_HARMLESS, mapped=True)
    except DamagedFileError as error:
        raise UserError(f"{path}: refused, nothing in it was run: {error}") from None


def _sorted_out(
    path: Path, content: Any
) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...]]:
    """Tensors by name, what else there is, and what was left out of names."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected tensors by name, found a {type(content).__name__}")
    if str(content.get("format", "")).startswith(OWN_MARK):
        raise OwnCheckpointError(f"{path}: is a checkpoint of t2sda already; nothing to import")
    networks: dict[str, Mapping[Any, Any]] = {}
    wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if wrapper is not None:
        networks[""] = content[wrapper]
    else:
        for name in _NETWORKS:
            if isinstance(content.get(name), Mapping):
                networks[f"{name}."] = content[name]
    beside = {key: value for key, value in content.items() if f"{key}." not in networks}
    if wrapper is not None:
        del beside[wrapper]
    elif not networks:
        networks[""], beside = content, {}
    tensors: dict[str, Tensor] = {}
    others = {str(key): _described(value) for key, value in beside.items()}
    wrappers: dict[str, None] = {}
    for prefix, state in networks.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                if wrapped := _WRAPPED_BY_TORCH.match(str(name)):
                    wrappers[wrapped[0]] = None
                plain = prefix + _WRAPPED_BY_TORCH.sub("", str(name), count=1)
                if plain in tensors:
                    raise UserError(f"{path}: holds {plain} twice, once as {name}; which is meant?")
                tensors[plain] = value
            else:
                others[prefix + str(name)] = _described(value)
    if not tensors:
        raise UserError(
            f"{path}: no tensors by name, at the top or under "
            f"{' or '.join(map(repr, (*_WRAPPERS, *_NETWORKS)))}; found "
            f"{', '.join(others) or 'nothing'}; save the tensors alone: "
            f"torch.save(model.state_dict(), 'weights.pth')"
        )
    return tensors, others, tuple(wrappers)


def _described(value: Any) -> str:
    count = sum(1 for _ in _tensors_in(value))
    kind = "a dictionary" if isinstance(value, Mapping) else f"a {type(value).__name__}"
    return f"{kind} with {count} tensor{'s' * (count != 1)}" if count else kind


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(item)
