"""What others wrote is read as data: nothing in a file runs, and what is no data is refused."""

from __future__ import annotations

import builtins
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from t2sda.errors import MissingFileError, UserError
from t2sda.weights.published import read_weight_file, sha256_of


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return builtins.open, (str(self.path), "w")


def as_archive(content: Any, path: Path) -> None:
    torch.save(content, path)


def as_of_torch_1_5(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_bare_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [as_archive, as_of_torch_1_5, as_bare_pickle])
@pytest.mark.parametrize("where", ["alone", "beside tensors", "among tensors"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(
    write: Callable[[Any, Path], None], where: str, tmp_path: Path
) -> None:
    trap = Malicious(tmp_path / "trap")
    tensors: dict[str, Any] = {"a.weight": torch.zeros(2)}
    content: dict[str, Any] = {
        "alone": trap,
        "beside tensors": {"state_dict": tensors, "meta": trap},
        "among tensors": {**tensors, "b": trap},
    }
    write(content[where], tmp_path / "file.pth")
    refused = r"nothing in it was run: it holds `(_?io|builtins)\.open`, which .* could run code"
    unknown = "nothing in it was run: "  # torch does not know the pickle's protocol
    with pytest.raises(UserError, match=unknown if write is as_bare_pickle else refused):
        read_weight_file(tmp_path / "file.pth")
    assert not (tmp_path / "trap").exists()
    with (tmp_path / "file.pth").open("rb") as file:  # the trap is one
        torch.load(file, weights_only=False) if write is not as_bare_pickle else pickle.load(file)
    assert (tmp_path / "trap").exists()


@pytest.mark.parametrize("write", [as_archive, as_of_torch_1_5])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_tensors_are_found_where_scripts_put_them(
    write: Callable[[Any, Path], None], wrapper: str | None, prefix: str, tmp_path: Path
) -> None:
    state = {f"{prefix}a.weight": torch.arange(3.0)}
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    write(content, tmp_path / "file.pth")
    found = read_weight_file(tmp_path / "file.pth")
    network = "model." if wrapper == "model" else ""
    assert torch.equal(found.tensors[f"{network}a.weight"], torch.arange(3.0))
    assert found.others == ({} if wrapper is None else {"epoch": "a int"})


def test_two_networks_side_by_side_keep_their_names(tmp_path: Path) -> None:
    """As DACS saves them."""
    content = {"model": {"a": torch.zeros(1)}, "ema_model": {"a": torch.ones(1)}, "optimizer": {}}
    torch.save(content, tmp_path / "file.pth")
    found = read_weight_file(tmp_path / "file.pth")
    assert found.tensors == {"model.a": torch.zeros(1), "ema_model.a": torch.ones(1)}
    assert found.others == {"optimizer": "a dictionary"}


def test_safetensors_give_the_same_and_a_digest(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "file.safetensors")
    found = read_weight_file(tmp_path / "file.safetensors")
    assert torch.equal(found.tensors["a"], torch.arange(3.0))
    assert found.sha256 == sha256_of(tmp_path / "file.safetensors")
    (tmp_path / "file.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="no safetensors file"):
        read_weight_file(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "expected tensors by name, found a list"),
        ({"epoch": 1}, "no tensors by name, .* found epoch"),
        ({"format": "t2sda checkpoint 2"}, "is a checkpoint of t2sda already"),
        ({"a": torch.zeros(1), "module.a": torch.ones(1)}, "holds a twice, once as module.a"),
    ],
)
def test_other_content_is_described(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=message):
        read_weight_file(tmp_path / "file.pth")


def test_what_is_no_file_of_torch_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        read_weight_file(tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"is a folder, not a file; give a file that ends in \.pth"):
        read_weight_file(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"is a folder, not a file; give .*/model\.safetensors"):
        read_weight_file(tmp_path)
    os.mkfifo(tmp_path / "pipe.bin")
    with pytest.raises(UserError, match="is a pipe, not a file"):
        read_weight_file(tmp_path / "pipe.bin")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "file.pth")
    whole = (tmp_path / "file.pth").read_bytes()
    for damaged in (b"", b"<html>", whole[: len(whole) // 2]):
        (tmp_path / "file.pth").write_bytes(damaged)
        with pytest.raises(UserError, match="refused, nothing in it was run: it is "):
            read_weight_file(tmp_path / "file.pth")
