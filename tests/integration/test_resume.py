"""Killed at any moment, a run ends with the weights of one that was never disturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Run, checkpoint_differences, environment
from tests.processes import end_of, run_t2sda, start_t2sda

FINAL = "checkpoint_0000012.pth"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The final checkpoint of a run that nobody disturbed."""
    from tests.integration.conftest import TINY_CONFIG

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY_CONFIG)
    words = ("train", "--config-file", folder / "tiny.yaml", "--output-dir", folder / "run")
    assert run_t2sda(words, ROOT, environment()).returncode == 0
    return folder / "run" / FINAL


def start(config: Path, run: Path, *overrides: object) -> ForkServerProcess:
    words = ("train", "--config-file", config, "--output-dir", run, "--resume", *overrides)
    return start_t2sda(words, ROOT, environment(), config.parent)


def wait_for(condition: Callable[[], object], process: ForkServerProcess) -> None:
    while process.is_alive() and not condition():
        time.sleep(0.0005)


@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_killed_at_random_moments(
    tiny_config: Path, tmp_path: Path, undisturbed: Path, num_workers: int
) -> None:
    run, dice = tmp_path / "run", random.Random(num_workers)
    for iteration in sorted(dice.sample(range(1, 12), 2)):
        process = start(tiny_config, run, "DATA.NUM_WORKERS", num_workers)
        wait_for(partial(reached, run, iteration), process)
        time.sleep(dice.random() * 0.05)
        process.kill()
        assert end_of(process) == -signal.SIGKILL
    assert end_of(start(tiny_config, run, "DATA.NUM_WORKERS", num_workers)) == 0
    assert checkpoint_differences(undisturbed, run / FINAL) == []


def test_killed_inside_a_checkpoint_write(
    tiny_config: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    process = start(tiny_config, run)
    wait_for(lambda: list(run.glob(".checkpoint_*.partial")), process)
    process.kill()
    assert end_of(process) == -signal.SIGKILL
    assert end_of(start(tiny_config, run)) == 0
    assert not list(run.rglob("*.partial"))
    assert checkpoint_differences(undisturbed, run / FINAL) == []


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGUSR1)),
    ],
)
def test_a_signal_leaves_a_checkpoint(
    tiny_config: Path, tmp_path: Path, undisturbed: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = start(tiny_config, run, "CHECKPOINT.PERIOD", 0, "DATA.NUM_WORKERS", 1)
    wait_for(partial(reached, run, 4), process)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert end_of(process) == 128 + number
    (checkpoint,) = run.glob("*.pth")
    assert FINAL > checkpoint.name >= "checkpoint_0000004.pth"
    assert end_of(start(tiny_config, run, "CHECKPOINT.PERIOD", 3, "CHECKPOINT.KEEP", 0)) == 0
    differing = checkpoint_differences(undisturbed, run / FINAL)
    assert differing == []


def test_a_folder_that_holds_a_run_needs_resume(
    t2sda: Run, tiny_config: Path, undisturbed: Path
) -> None:
    result = t2sda("train", "--config-file", tiny_config, "--output-dir", undisturbed.parent)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "holds a run already" in result.stderr
    assert "--resume" in result.stderr
    assert "Traceback" not in result.stderr


def reached(run: Path, iteration: int) -> bool:
    """Whether so many iterations are logged."""
    path = run / "metrics.jsonl"
    return path.exists() and path.read_text().count("\n") >= iteration
