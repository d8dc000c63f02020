"""Checkpoints: atomic, strict, harmless."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.checkpoint import (
    CheckpointWriter,
    checkpoint_path,
    checkpoints_in,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
    save_checkpoint,
)
from t2sda.errors import MissingFileError, UserError


def writer(folder: Path, module: nn.Module, keep: int = 0) -> CheckpointWriter:
    return CheckpointWriter(
        folder,
        lambda: {
            "meta_arch": module.state_dict(),
            "optimizers": {"student": torch.optim.AdamW(module.parameters()).state_dict()},
            "hooks": {"Running": {"mean": torch.ones(2)}},
            "scaler": {},
            "data": {},
        },
        load_config(None),
        CITYSCAPES_19,
        period=2,
        keep=keep,
        max_iter=10,
    )


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Every write beyond `size` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_round_trip(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    writer(tmp_path, module).save(4)
    loaded = load_checkpoint(checkpoint_path(tmp_path, 4))
    assert loaded.iteration == 4
    assert loaded.taxonomy == CITYSCAPES_19
    assert loaded.cfg == load_config(None)
    assert torch.equal(loaded.meta_arch["weight"], module.weight)
    assert loaded.optimizers["student"]["param_groups"][0]["params"] == [0, 1]
    assert torch.equal(loaded.hooks["Running"]["mean"], torch.ones(2))


def test_a_checkpoint_of_another_format_gets_one_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"format": "t2sda checkpoint 1", "optimizer": {}}, path)
    with pytest.raises(
        UserError, match="a 't2sda checkpoint 1', but .* reads 't2sda checkpoint 3'"
    ):
        load_checkpoint(path)


def test_full_disk_leaves_the_previous_checkpoint_whole(tmp_path: Path) -> None:
    module = nn.Linear(300, 300)
    writer(tmp_path, module).save(2)
    before = checkpoint_path(tmp_path, 2).read_bytes()
    with file_size_limit(100_000), pytest.raises(UserError, match=r"0000004\.pth: .* intact"):
        writer(tmp_path, module).save(4)
    assert checkpoints_in(tmp_path) == [checkpoint_path(tmp_path, 2)]
    assert checkpoint_path(tmp_path, 2).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_0000002.pth"]


def test_a_full_disk_never_spoils_the_file_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_0000002.pth"
    save_checkpoint(path, {"iteration": 2})
    before = path.read_bytes()
    with file_size_limit(1000), pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(path, {"weights": torch.zeros(1000)})
    assert path.read_bytes() == before


def test_half_written_files_are_not_found_and_removed_at_the_start(tmp_path: Path) -> None:
    partial = tmp_path / "checkpoint_0000004.pth.partial"
    partial.write_bytes(b"half")
    assert checkpoints_in(tmp_path) == []
    writer(tmp_path, nn.Linear(1, 1)).before_train(0)
    assert not partial.exists()


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    saver = writer(tmp_path, nn.Linear(1, 1), keep=2)
    for iteration in (2, 4, 10_000_000, 6):
        saver.save(iteration)
    assert [path.name for path in checkpoints_in(tmp_path)] == [
        "checkpoint_0000006.pth",
        "checkpoint_10000000.pth",
    ]


def test_run_folder_means_its_newest_checkpoint(tmp_path: Path) -> None:
    for iteration in (2, 10):
        writer(tmp_path, nn.Linear(1, 1)).save(iteration)
    assert resolve_checkpoint(tmp_path) == checkpoint_path(tmp_path, 10)
    assert resolve_checkpoint(checkpoint_path(tmp_path, 2)) == checkpoint_path(tmp_path, 2)


def test_missing_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file or folder"):
        resolve_checkpoint(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"no checkpoint_\*\.pth in this folder"):
        resolve_checkpoint(tmp_path)


def test_truncated_checkpoint(tmp_path: Path) -> None:
    writer(tmp_path, nn.Linear(30, 30)).save(2)
    path = checkpoint_path(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"0000002\.pth: not a readable checkpoint"):
        load_checkpoint(path)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"format": Malicious(f"touch {trace}")}, path)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious(f"touch {trace}")))
    with pytest.raises(UserError, match="nor any file of torch"):
        load_checkpoint(path)
    assert not trace.exists()


def test_foreign_checkpoint(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.pth")
    with pytest.raises(UserError, match="not a checkpoint of t2sda"):
        load_checkpoint(tmp_path / "foreign.pth")


def test_another_architecture_says_what_differs() -> None:
    state = {"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}
    with pytest.raises(
        UserError,
        match=r"1 tensors missing: bias; 1 tensors unknown: scale; "
        r"1 tensors of another shape: weight \(2, 4\) for \(2, 3\)",
    ):
        load_weights_(nn.Linear(3, 2), state, Path("other.pth"))
