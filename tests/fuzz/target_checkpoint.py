"""Checkpoints: bytes damaged, or the content edited and saved again with fresh checksums."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from t2sda.config import load_config
from t2sda.data.taxonomies import CITYSCAPES_19
from t2sda.engine import checkpoint as checkpoint_module
from t2sda.engine import optim
from t2sda.engine.checkpoint import (
    CheckpointWriter,
    check_iteration,
    checkpoint_path,
    load_checkpoint,
    load_weights_,
)
from t2sda.engine.optim import STUDENT, Owner, load_optimizers_
from t2sda.meta_arch.owners import LrSchedule
from t2sda.weights import torch_files
from tests.fuzz.byte_inputs import damaged, flipped
from tests.fuzz.harness import Target

STEPS = 3


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 9), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    return module, torch.optim.AdamW(module.named_parameters(), fused=True)


@functools.cache
def whole() -> bytes:
    """A checkpoint after some steps."""
    module, optimizer = network()
    for _ in range(STEPS):
        module(torch.rand(2, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    state = {
        "meta_arch": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "pass_optimizers": {},
        "hooks": {},
        "scaler": {},
        "data": {"source": [{"name": "own", "images": 2, "files_sha256": "0af"}]},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        CheckpointWriter(
            path, lambda: state, load_config(None), CITYSCAPES_19, period=0, keep=0, max_iter=9
        ).save(STEPS)
        return checkpoint_path(path, STEPS).read_bytes()


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__("os").system, ("touch it_ran",)


VALUES = st.sampled_from(
    (
        *(None, True, -1, 0, 2, 2**70, 0.5, math.nan, math.inf, "", "x", "\x1b[31m", b"x", [], {}),
        *((), [[]], {"a": 1}, {1: 2}, [math.nan], {"params": [0]}, {"state": {}}, Evil()),
        *(torch.zeros(0), torch.tensor(math.nan), nn.Parameter(torch.zeros(4))),
    )
)
CHANGES = st.sampled_from(
    (
        *(lambda t: t.reshape(-1)[:1], lambda t: t.unsqueeze(0), lambda t: t.unsqueeze(0)[:0]),
        *(lambda t: t.half(), lambda t: t.double(), lambda t: t.long(), lambda t: t.to_sparse()),
        *(lambda t: t.to("meta"), lambda t: t.tolist(), lambda t: -1 - t.abs()),
        *(lambda t: t * math.nan, lambda t: t + math.inf, lambda t: t + 0.5),
        lambda t: torch.ones((), dtype=t.dtype).expand(t.shape),
    )
)
NUMBER = st.integers(0, 200)
MOMENTS = ("optimizer", "state")
EDITS = st.one_of(
    st.tuples(st.tuples(st.just("meta_arch"), NUMBER), CHANGES),
    st.tuples(st.tuples(*map(st.just, MOMENTS), NUMBER, NUMBER), CHANGES),
    st.tuples(st.lists(NUMBER, min_size=1, max_size=5).map(tuple), VALUES | st.just(Ellipsis)),
    st.tuples(st.tuples(NUMBER), VALUES | st.just(Ellipsis)),
)
BYTES = flipped(st.builds(whole)) | damaged(st.builds(whole)) | st.binary(max_size=300)


def edited(content: Any, path: Sequence[int | str], new: Any) -> None:
    """Go down through containers along `path`; there, remove (...), change or replace."""
    keys = list(content) if isinstance(content, Mapping) else list(range(len(content)))
    if not keys:
        return
    key = path[0] if isinstance(path[0], str) else keys[path[0] % len(keys)]
    if isinstance(content[key], (dict, list)) and len(path) > 1:
        edited(content[key], path[1:], new)
    elif new is Ellipsis:
        del content[key]
    elif callable(new):
        content[key] = new(content[key])
    else:
        content[key] = new


def run(value: bytes | tuple[Sequence[int | str], Any], folder: Path) -> None:
    """What is loaded fits its place; of damaged bytes it is what was saved, to the last bit."""
    path = checkpoint_path(folder, STEPS)
    original = folder / "original.pth"
    original.write_bytes(whole())
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        content = torch.load(original, weights_only=True)
        edited(content, *value)
        torch.save(content, path)
    checkpoint = load_checkpoint(path)
    module, optimizer = network()
    load_weights_(module, checkpoint.meta_arch, path)
    check_iteration(checkpoint, 9)
    owner = Owner("student", optimizer, LrSchedule(9, 0, 1.0, 1.0))
    states = {STUDENT: checkpoint.optimizer, **checkpoint.pass_optimizers}
    load_optimizers_([owner], states, checkpoint.iteration, checkpoint.num_skipped)
    for tensor in module.state_dict().values():
        assert torch.isfinite(tensor).all()
    assert_usable(optimizer)
    if isinstance(value, bytes):
        saved = load_checkpoint(original)
        assert checkpoint.cfg == saved.cfg
        for name, tensor in saved.meta_arch.items():
            assert torch.equal(checkpoint.meta_arch[name], tensor)
        for number, moments in saved.optimizer["state"].items():
            for name, tensor in moments.items():
                found = checkpoint.optimizer["state"][number][name]
                assert torch.equal(found, tensor)


def assert_usable(optimizer: torch.optim.Optimizer) -> None:
    """What a fused step reads and writes without asking; so it is not tried here."""
    assert optimizer.state
    for parameter, state in optimizer.state.items():
        assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert state["step"].shape == ()
        assert 0 < state["step"] <= STEPS
        for name in ("exp_avg", "exp_avg_sq"):
            assert state[name].shape == parameter.shape
            assert state[name].dtype == parameter.dtype
            assert state[name].layout == parameter.layout
            assert state[name].device == parameter.device
            assert state[name].stride() == parameter.stride()
            assert torch.isfinite(state[name]).all()
        assert (state["exp_avg_sq"] >= 0).all()


def _trust_moments(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(optim, "optimizer_problems", lambda *_: [])


def _trust_structure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint_module, "structure_problems", lambda *_: [])


def _trust_tensors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint_module, "tensor_problems", lambda *_: [])


def _trust_checksums(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_files, "_check_checksums", lambda *_: None)


TARGET = Target(
    EDITS | BYTES,
    run,
    (_trust_moments, _trust_structure, _trust_tensors, _trust_checksums),
)
