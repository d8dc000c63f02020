"""hf:// finds the weights file of a repository in the cache or on the hub, or says why not."""

from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import save_file

from t2sda.errors import UserError
from t2sda.modeling.backbones.timm_weights import repository_of
from t2sda.weights.sources import load_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put(cache: Path, repository: str, file_name: str) -> None:
    """A file as a download leaves it in the hub's cache."""
    commit = "0" * 40
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    if file_name.endswith(".safetensors"):
        save_file(STATE, snapshot / file_name)
    else:
        torch.save(STATE, snapshot / file_name)


@pytest.mark.parametrize("file_name", ["model.safetensors", "pytorch_model.bin"])
def test_what_is_in_the_cache_needs_no_network(cache: Path, file_name: str) -> None:
    put(cache, "nvidia/mit-b0", file_name)
    assert torch.equal(load_weights("hf://nvidia/mit-b0")["a.weight"], STATE["a.weight"])


def test_timm_names_lead_to_timms_repositories(cache: Path) -> None:
    put(cache, "timm/resnet101c.gluon_in1k", "model.safetensors")
    found = load_weights("timm://resnet101c.gluon_in1k")
    assert torch.equal(found["a.weight"], STATE["a.weight"])
    assert repository_of("timm://resnet101c") == "timm/resnet101c.gluon_in1k"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet101cc", "resnet101c"), ("resnet101c.x", r"resnet101c\.gluon_in1k")],
)
def test_unknown_timm_name_or_tag_lists_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"no weights of this name.*nearest: .*{nearest}"):
        load_weights(f"timm://{name}")


def test_without_network_and_cache_the_message_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be reached\..*hf download nvidia/mit-b0"):
        load_weights("hf://nvidia/mit-b0")


@pytest.mark.parametrize("source", ["hf://mit-b0", "hf://nvidia/mit-b0/model.bin", "hf://"])
def test_anything_but_owner_and_name_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="expected hf://OWNER/NAME"):
        load_weights(source)


def test_name_that_no_repository_can_have_is_refused(cache: Path) -> None:
    with pytest.raises(UserError, match=r"weights 'hf://own er/name': .*own er"):
        load_weights("hf://own er/name")


class Response:
    """As much of an HTTP response as the hub's errors look at."""

    headers: ClassVar[dict[str, str]] = {}
    request: ClassVar[Any] = None
    status_code = 403


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError, r"accept this repository's terms.*hf auth login"),
        (errors.RepositoryNotFoundError, "no such public repository"),
        (errors.RemoteEntryNotFoundError, "has no file model.safetensors or pytorch_model.bin"),
        (errors.HfHubHTTPError, "weights 'hf://owner/name': refused"),
    ],
)
def test_refusals_of_the_hub_are_explained(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Any, message: str
) -> None:
    def refuse(*_: object) -> None:
        raise error("refused", response=Response())

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match=message):
        load_weights("hf://owner/name")


def test_second_file_name_is_asked_for_where_the_first_is_missing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache / "pytorch_model.bin"
    torch.save(STATE, path)

    def download(repository: str, name: str) -> str:
        if name != path.name:
            raise errors.RemoteEntryNotFoundError("none", response=Response())  # type: ignore[arg-type]
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_weights("hf://owner/name").keys() == STATE.keys()
