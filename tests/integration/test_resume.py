"""Killed at any moment, a run ends with the weights of one that was never disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Run, checkpoint_differences, command, environment

FINAL = "checkpoint_0000012.pth"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The final checkpoint of a run that nobody disturbed."""
    from tests.integration.conftest import TINY_CONFIG

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY_CONFIG)
    subprocess.run(
        command("train", "--config-file", folder / "tiny.yaml", "--output-dir", folder / "run"),
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
    )
    return folder / "run" / FINAL


def start(config: Path, run: Path, *overrides: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("train", "--config-file", config, "--output-dir", run, "--resume", *overrides),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not condition():  # type: ignore[operator]
        time.sleep(0.0005)


@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_killed_at_random_moments(
    tiny_config: Path, tmp_path: Path, undisturbed: Path, num_workers: int
) -> None:
    run, dice = tmp_path / "run", random.Random(num_workers)
    for iteration in sorted(dice.sample(range(1, 12), 2)):
        process = start(tiny_config, run, "DATA.NUM_WORKERS", num_workers)
        wait_for(lambda i=iteration: logged_iterations(run) >= i, process)
        time.sleep(dice.random() * 0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(tiny_config, run, "DATA.NUM_WORKERS", num_workers).wait() == 0
    assert checkpoint_differences(undisturbed, run / FINAL) == []


def test_killed_inside_a_checkpoint_write(
    tiny_config: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    process = start(tiny_config, run)
    wait_for(lambda: list(run.glob(".checkpoint_*.partial")), process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert start(tiny_config, run).wait() == 0
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
    wait_for(lambda: logged_iterations(run) >= 4, process)
    process.send_signal(number)
    assert process.wait() == 128 + number
    (checkpoint,) = run.glob("*.pth")
    assert FINAL > checkpoint.name >= "checkpoint_0000004.pth"
    assert start(tiny_config, run, "CHECKPOINT.PERIOD", 3, "CHECKPOINT.KEEP", 0).wait() == 0
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


def logged_iterations(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0
