"""Runs of the command line in processes of their own, on a network and images that are small."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from t2sda.cli.main import main
from tests.processes import run_t2sda

ROOT = Path(__file__).parents[2]

TINY_CONFIG = """
DATASETS: {SOURCE: streets_clear_train}
DATA: {CROP_SIZE: [64, 96], NUM_WORKERS: 0}
MODEL: {BACKBONE: {TIMM_NAME: test_resnet}, HEAD: {CHANNELS: 16}}
SOLVER: {MAX_ITER: 12, BATCH_SIZE: 2, WARMUP_ITERS: 2, BASE_LR: 1.0e-3}
CHECKPOINT: {PERIOD: 3, KEEP: 0}
EVALUATION: {PERIOD: 0}
LOGGING: {PERIOD: 1, TENSORBOARD: false}
DEVICE: cpu
"""
"""A source-only run of seconds; `test_resnet` is a network of timm's own tests."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """The environment of a child: one thread, so that runs are fast side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    """A configuration file of a run of seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_CONFIG)
    return path


@pytest.fixture
def t2sda() -> Run:
    """Runs `t2sda ARGUMENTS` and returns its exit code and output."""

    def run(*arguments: object, cwd: Path = ROOT, timeout: float = 240) -> object:
        return run_t2sda(arguments, cwd, environment(), timeout)

    return run  # type: ignore[return-value]


@pytest.fixture
def t2sda_inline(capsys: pytest.CaptureFixture[str]) -> Run:
    """Like `t2sda`, in this process: for what needs none of its own, at a tenth of the time."""

    def run(*arguments: object) -> object:
        capsys.readouterr()
        returncode = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return subprocess.CompletedProcess([], returncode, output.out, output.err)

    return run  # type: ignore[return-value]


def differences(first: object, second: object, path: str = "") -> list[str]:
    """Where two checkpoints differ, bit by bit; the configuration's output folder may."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and torch.equal(first, second)
    elif isinstance(first, dict):
        if not isinstance(second, dict) or first.keys() != second.keys():
            return [path]
        return [d for key in first for d in differences(first[key], second[key], f"{path}/{key}")]
    elif isinstance(first, (list, tuple)):
        if not isinstance(second, Sequence) or len(first) != len(second):
            return [path]
        pairs = enumerate(zip(first, second, strict=True))
        return [d for index, (a, b) in pairs for d in differences(a, b, f"{path}/{index}")]
    else:
        same = first == second or path in ("/config/OUTPUT_DIR", "/config/DATA/NUM_WORKERS")
    return [] if same else [path]


def checkpoint_differences(first: Path, second: Path) -> list[str]:
    """Where two checkpoint files differ."""
    loaded = [torch.load(path, weights_only=True) for path in (first, second)]
    return differences(*loaded)
