"""Checksums are asked, code is not run, and torch's unsafe advice is not passed on."""

from __future__ import annotations

import argparse
import contextlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from t2sda.errors import MissingFileError, UserError
from t2sda.weights.sources import load_weights
from t2sda.weights.torch_files import DamagedFileError, is_whole, read_torch_file

STATE = {"weight": torch.arange(600.0)}


def saved(path: Path, content: object = STATE) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_flipped_bit_in_a_tensor_is_found_wherever_it_is(tmp_path: Path, place: float) -> None:
    path = saved(tmp_path / "a.pth")
    with zipfile.ZipFile(path) as archive:
        tensor = archive.getinfo(next(name for name in archive.namelist() if "/data/0" in name))
    content = bytearray(path.read_bytes())
    begin = content.index(STATE["weight"].numpy().tobytes())
    content[begin + int(place * tensor.file_size)] ^= 0b100
    path.write_bytes(content)
    assert torch.load(path, weights_only=True).keys() == STATE.keys()  # torch does not notice
    for any_writer in (False, True):
        with pytest.raises(DamagedFileError, match="checksum of a/data/0 does not fit"):
            read_torch_file(path, any_writer=any_writer)
    assert not is_whole(path)
    with pytest.raises(UserError, match=r"a\.pth.*checksum"):
        load_weights(str(path))


def test_a_file_cut_short_is_not_whole(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth")
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert not is_whole(path)
    assert not is_whole(tmp_path / "none.pth")


class HistoryBuffer:
    """What a training script leaves beside its weights."""

    def __init__(self) -> None:
        self.values = [1, 2]


@pytest.mark.parametrize(
    "beside",
    [HistoryBuffer(), argparse.Namespace(lr=1), np.float64(0.5), Path("a"), {HistoryBuffer: 1}],
)
def test_tensors_beside_objects_of_other_classes_are_read(tmp_path: Path, beside: object) -> None:
    path = saved(tmp_path / "a.pth", {"meta": beside, "state_dict": STATE})
    assert torch.equal(load_weights(str(path))["weight"], STATE["weight"])
    with pytest.raises(DamagedFileError, match="is no plain data and could run code"):
        read_torch_file(path)


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


@pytest.mark.parametrize("function", [os.mkdir, exec, __import__("shutil").copytree])
def test_no_function_of_a_file_is_called(tmp_path: Path, function: object) -> None:
    trace = tmp_path / "it_ran"
    argument = f"import os; os.mkdir({str(trace)!r})" if function is exec else str(trace)
    arguments = (str(tmp_path), argument) if "copytree" in str(function) else (argument,)
    path = saved(tmp_path / "a.pth", {"evil": Runs(function, *arguments), "state_dict": STATE})
    for any_writer in (False, True):
        with pytest.raises(DamagedFileError) if not any_writer else _whatever():
            read_torch_file(path, any_writer=any_writer)
    assert not trace.exists()


def _whatever():

    return contextlib.suppress(DamagedFileError)


@pytest.mark.parametrize("advice", ["weights_only", "add_safe_globals", "trust", "\x1b"])
def test_advice_to_load_it_anyway_is_not_passed_on(tmp_path: Path, advice: str) -> None:
    for content in ({"a": HistoryBuffer()}, {"a": Runs(os.getcwd)}):
        with pytest.raises(DamagedFileError) as caught:
            read_torch_file(saved(tmp_path / "a.pth", content))
        assert advice not in str(caught.value)


def test_the_older_format_is_read_of_others_only(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_torch_file(path, any_writer=True)["weight"], STATE["weight"])
    with pytest.raises(DamagedFileError, match="no file of torch"):
        read_torch_file(path)


def test_a_device_is_not_read_and_a_missing_file_is_said() -> None:
    with pytest.raises(UserError, match="/dev/zero: is a device, not a file"):
        read_torch_file(Path("/dev/zero"), any_writer=True)
    with pytest.raises(MissingFileError, match="no such file"):
        read_torch_file(Path("/no/such.pth"))
