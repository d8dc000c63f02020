"""`t2sda sweep` through submitit: GPUs, clusters, and what an interrupted sweep leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from t2sda.cli import sweep as cli
from t2sda.cli.sweep import LocalTrain, Submitit, Train, command, num_gpus_per_run
from t2sda.errors import UserError
from t2sda.training.sweep import Sweep, read_sweep

ONE = """
output_dir: {folder}/out
set: {{SOLVER.MAX_ITER: 1000, DATA.CROP_SIZE: [64, 64], DATA.NUM_WORKERS: 0, LOGGING.PERIOD: 1}}
runs: {{source: {{config: quickstart_source_only.yaml}}}}
"""


def sweep_file(folder: Path) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(ONE.format(folder=folder))
    return path


class Job:
    """A job that goes on until `ended` is set."""

    ended = False

    def done(self) -> bool:
        return self.ended


class Executor:
    """Notes the GPUs of what it is given."""

    def __init__(self) -> None:
        self.gpus: list[list[str]] = []
        self.jobs: list[Job] = []

    def submit(self, task: LocalTrain) -> Job:
        self.gpus.append(list(task.gpus))
        self.jobs.append(Job())
        return self.jobs[-1]


def submitit(folder: Path, **executor: object) -> Any:
    """With an executor that starts nothing."""
    found: Any = Submitit(Sweep(folder, (), executor), "local", 4)
    found.executor = Executor()
    return found


def test_runs_on_one_machine_have_gpus_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "visible_gpus", lambda: ["3", "5"])
    (run,) = read_sweep(sweep_file(tmp_path)).runs
    submit = submitit(tmp_path)
    submit(run)
    submit(run)
    submit.executor.jobs[1].ended = True
    submit(run)
    submit(run)
    assert submit.executor.gpus == [["3"], ["5"], ["5"], ["3"]]


def test_without_gpus_a_run_has_none_whatever_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "visible_gpus", list)
    submit = submitit(tmp_path, gpus_per_node=4)
    submit(read_sweep(sweep_file(tmp_path)).runs[0])
    assert submit.executor.gpus == [[]]


def test_gpus_of_a_run_are_one_unless_the_file_says_otherwise() -> None:
    assert num_gpus_per_run({}) == 1
    assert num_gpus_per_run({"gpus_per_node": 2}) == 2
    assert num_gpus_per_run({"gpus_per_node": 2, "local_gpus_per_node": 0}) == 0


def test_visible_gpus_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cli.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,GPU-1f")
    assert cli.visible_gpus() == ["6", "GPU-1f"]


def test_without_slurm_its_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--cluster slurm: .*srun"):
        command([str(sweep_file(tmp_path)), "--cluster", "slurm"])


def test_a_job_that_slurm_refuses_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("srun", "sbatch"):
        script = tmp_path / name
        script.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: nope' >&2\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="source: cannot be submitted: .*invalid partition"):
        command([str(sweep_file(tmp_path)), "--cluster", "slurm"])


def test_labels_come_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, str]] = []

    def run(verb: str, argv: Sequence[str]) -> int:
        called.append((verb, argv[0]))
        return 2 if argv[0] == "bad" else 0

    monkeypatch.setattr(cli, "run_verb", run)
    Train(["train"], ["labels"])()
    assert called == [("pseudo-label", "labels"), ("train", "train")]
    called.clear()
    with pytest.raises(RuntimeError, match="t2sda pseudo-label ended with exit code 2"):
        Train(["train"], ["bad"])()
    assert called == [("pseudo-label", "bad")]


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "SIGINT to the sweep"])
def test_an_interrupted_sweep_leaves_checkpoints(tmp_path: Path, to_all: bool) -> None:
    path = sweep_file(tmp_path)
    words = ["from t2sda.cli.sweep import command", f"command([{str(path)!r}])"]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(words)],
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    log = tmp_path / "out/source/log.txt"
    end = time.monotonic() + 120
    while not log.exists() or "iteration 2/" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    assert process.wait(timeout=60)
    (run,) = read_sweep(path).runs
    while run.state == "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (run.state, run.iteration > 0) == ("stopped", True)
