"""Checkpoints: atomic, strict, harmless."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine.checkpoint import (
    CheckpointWriter,
    check_hook_state,
    check_hook_tensors,
    check_iteration,
    checkpoint_path,
    checkpoints_in,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
    save_checkpoint,
)
from t2sda.engine.hooks import Hook
from t2sda.errors import MissingFileError, UserError
from tests.full_disk import file_size_limit


def writer(folder: Path, module: nn.Module, keep: int = 0) -> CheckpointWriter:
    return CheckpointWriter(
        folder,
        lambda: {
            "meta_arch": module.state_dict(),
            "optimizer": torch.optim.AdamW(module.parameters()).state_dict(),
            "pass_optimizers": {"critic": torch.optim.AdamW(module.parameters()).state_dict()},
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


def test_round_trip(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    writer(tmp_path, module).save(4)
    loaded = load_checkpoint(checkpoint_path(tmp_path, 4))
    assert loaded.iteration == 4
    assert loaded.taxonomy == CITYSCAPES_19
    assert loaded.cfg == load_config(None)
    assert torch.equal(loaded.meta_arch["weight"], module.weight)
    assert loaded.optimizer["param_groups"][0]["params"] == [0, 1]
    assert loaded.pass_optimizers["critic"]["param_groups"][0]["params"] == [0, 1]
    assert torch.equal(loaded.hooks["Running"]["mean"], torch.ones(2))


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_checkpoint_of_another_format_gets_one_clear_message(tmp_path: Path, number: int) -> None:
    path = tmp_path / "old.pth"
    torch.save({"format": f"t2sda checkpoint {number}", "optimizer": {}}, path)
    with pytest.raises(
        UserError, match=f"a 't2sda checkpoint {number}', but .* reads 't2sda checkpoint 4'"
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
    with pytest.raises(UserError, match="not a readable checkpoint: it holds `posix.system`"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious(f"touch {trace}")))
    with pytest.raises(UserError, match="no file of torch"):
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


def flipped(path: Path, mark: bytes) -> None:
    """Damage the byte behind `mark`."""
    content = bytearray(path.read_bytes())
    content[content.index(mark) + len(mark)] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_of_a_weight_is_found_and_an_older_checkpoint_offered(
    tmp_path: Path,
) -> None:
    module = nn.Linear(3, 2)
    for iteration in (2, 4, 6):
        writer(tmp_path, module).save(iteration)
    mark = module.weight.detach().numpy().tobytes()[:8]
    flipped(checkpoint_path(tmp_path, 6), mark)
    checkpoint_path(tmp_path, 4).write_bytes(b"")
    with pytest.raises(
        UserError,
        match=r"0000006\.pth: .*checksum of .* does not fit; the newest whole one beside "
        r"it is .*0000002\.pth: use that, or delete checkpoint_0000006.pth",
    ):
        load_checkpoint(checkpoint_path(tmp_path, 6))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(50), "damaged or was cut short"),
    ],
)
def test_what_lies_in_place_of_a_checkpoint_is_said(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = checkpoint_path(tmp_path, 2)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{message}.*use another checkpoint"):
        load_checkpoint(path)


def test_a_pipe_is_no_checkpoint_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="is a pipe, not a file"):
        load_checkpoint(tmp_path / "pipe.pth")
    os.mkfifo(checkpoint_path(tmp_path, 9))
    assert checkpoints_in(tmp_path) == []


def test_a_checkpoint_under_another_number_is_refused(tmp_path: Path) -> None:
    writer(tmp_path, nn.Linear(1, 1)).save(2)
    other = checkpoint_path(tmp_path, 2).rename(checkpoint_path(tmp_path, 4))
    with pytest.raises(UserError, match="of iteration 2, its name says 4"):
        load_checkpoint(other)
    assert load_checkpoint(other.rename(tmp_path / "best.pth")).iteration == 2


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_fewer_iterations_than_are_done_are_an_error(tmp_path: Path, asked: int) -> None:
    module = nn.Linear(1, 1)
    writer(tmp_path, module).save(4)
    checkpoint = load_checkpoint(checkpoint_path(tmp_path, 4))
    with pytest.raises(UserError, match=rf"4 iterations are done, and SOLVER.MAX_ITER is {asked};"):
        check_iteration(checkpoint, asked)
    check_iteration(checkpoint, 4)


def test_missing_and_mistyped_parts_are_named_together(tmp_path: Path) -> None:
    writer(tmp_path, nn.Linear(1, 1)).save(2)
    path = checkpoint_path(tmp_path, 2)
    content = torch.load(path, weights_only=True)
    del content["iteration"]
    content["versions"] = 3
    torch.save(content, path)
    with pytest.raises(UserError, match=r"`iteration` is missing; `versions` must be"):
        load_checkpoint(path)


def test_the_state_of_a_hook_fits_the_hook() -> None:
    class Running(Hook):
        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"mean": torch.zeros(2)}

    check_hook_state(Running(), "Running", {"mean": torch.ones(2), "old": torch.ones(1)}, Path("a"))
    with pytest.raises(UserError, match=r"a: .*hook Running: .*mean \(3,\) for \(2,\)"):
        check_hook_state(Running(), "Running", {"mean": torch.ones(3)}, Path("a"))


def test_state_of_a_hook_that_no_checkpoint_takes_is_refused_before_training() -> None:
    class Counting(Hook):
        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"count": 3}  # type: ignore[dict-item]

    with pytest.raises(UserError, match=r"hook Counting: 'count' .* int; .*torch\.tensor\(3\)"):
        check_hook_tensors({"Counting": Counting()})
