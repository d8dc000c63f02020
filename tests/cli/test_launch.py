"""`t2sda launch --print`: what it prints runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from t2sda.cli.launch import SECONDS_TO_STOP
from t2sda.cli.main import main
from t2sda.distributed import check_shared_folder, rank
from t2sda.errors import UserError
from tests.distributed import on_two_ranks
from tests.integration.conftest import ROOT, TINY_CONFIG, checkpoint_differences, environment

LIMIT = 30
"""Seconds from the end of one process to that of all."""
TRAIN = ["train", "--config-file", "a file.yaml", "--output-dir", "runs/$x", "SOLVER.MAX_ITER", "9"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["launch", *arguments]) == 0
    return capsys.readouterr().out


def test_the_job_file_hands_slurms_answers_and_the_very_words_to_torchrun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run by bash with a scontrol and an srun of our own, which writes down what it got."""
    options = ("--nodes", "3", "--processes", "4", "--slurm", "time=24:00:00")
    job = tmp_path / "job.sh"
    job.write_text(printed(capsys, "--print", "slurm", *options, "--", *TRAIN))
    directives = [line for line in job.read_text().splitlines() if line.startswith("#SBATCH")]
    for option in ("nodes=3", "gpus-per-node=4", "ntasks-per-node=1", "time=24:00:00"):
        assert f"#SBATCH --{option}" in directives
    for name, body in (
        ("scontrol", 'test "$3" = "n[7-9]" && printf "n7\\nn8\\nn9\\n"'),
        ("srun", 'printf "%s\\0" "$@" > got; env > environment'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n[7-9]", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_ID": "42"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    bash = str(shutil.which("bash"))
    subprocess.run([bash, str(job)], cwd=tmp_path, env={**slurm, "PATH": path}, check=True)
    found = re.search(
        r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", (tmp_path / "environment").read_text()
    )
    assert found is not None
    assert 30 < int(found[1]) < SECONDS_TO_STOP  # torchrun must not kill what still saves
    got = (tmp_path / "got").read_text().split("\0")[:-1]
    assert got[-len(TRAIN) :] == TRAIN
    assert got[: -len(TRAIN)] == [
        *("torchrun", "--nnodes", "3", "--nproc-per-node", "4", "--rdzv-backend", "c10d"),
        *("--rdzv-id", "42", "--rdzv-endpoint", "n7:29500", "-m", "t2sda"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--print", "torchrun", "--", *TRAIN], "--rendezvous HOST:29500"),
        (["--print", "torchrun", "--rendezvous", "a b:1", "--", *TRAIN], "a b:1: name one"),
        (["--print", "slurm", "--rendezvous", "a:1", "--", *TRAIN], "leave it out"),
        (["--print", "slurm", "--slurm", "time=1\nrm -r x", "--", *TRAIN], "OPTION=VALUE"),
        (["--print", "torchrun", "--rendezvous", "a:1", "--slurm", "x", "--", *TRAIN], "alone"),
        (["--print", "slurm"], "nothing to run"),
        (["--print", "torchrun", "--rendezvous", "a:0", "--", *TRAIN], "a free port"),
        (["--print", "torchrun", "--rendezvous", "a:65536", "--", *TRAIN], "a free port"),
        (["--print", "torchrun", "--rendezvous", "a:" + "9" * 5000, "--", *TRAIN], "a free port"),
        (["--print", "slurm", "--slurm", "nodes=4", "--", *TRAIN], "--nodes says it"),
        (["--print", "slurm", "--slurm", "ntasks=4", "--", *TRAIN], "--processes says how many"),
        (["--print", "slurm", "--", "infer"], "train or evaluate"),
    ],
)
def test_what_cannot_be_launched_is_said(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", *arguments]) == 2
    assert words in capsys.readouterr().err


def sees_a_folder_of_its_own(number: int) -> str:
    """What rank says where every node has a disk of its own."""
    folder = Path(os.environ["T2SDA_TEST_FOLDER"]) / str(rank())
    folder.mkdir()
    with pytest.raises(UserError) as found:
        check_shared_folder(folder)
    return str(found.value)


def sees_the_same_folder(number: int) -> list[str]:
    """What is left in a folder that both see."""
    folder = Path(os.environ["T2SDA_TEST_FOLDER"])
    check_shared_folder(folder)
    return [path.name for path in folder.glob(".seen*") if rank() == 0]


@pytest.mark.slow  # processes that import torch
def test_an_output_folder_that_is_not_shared_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2SDA_TEST_FOLDER", str(tmp_path))
    for said in on_two_ranks(sees_a_folder_of_its_own, tmp_path):
        assert "1 of 2 processes do not see" in said
        assert "all nodes share" in said
    assert on_two_ranks(sees_the_same_folder, tmp_path) == [[], []]


def start_nodes(line: str) -> list[subprocess.Popen[str]]:
    """The printed line on two addresses of this machine, as on two machines."""
    words = shlex.split(line)
    assert words[0] == "torchrun"
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *("--local-addr", f"127.0.0.{number}", *words[1:]),
            ],
            cwd=ROOT,
            env={**environment(), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2)
    ]


def processes_of(node: subprocess.Popen[str]) -> list[int]:
    """Of the training: torchrun starts them in sessions of their own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == node.pid:
            found.append(int(path.parent.name))
    return found


def end(nodes: list[subprocess.Popen[str]]) -> None:
    for node in nodes:
        for process in (*processes_of(node), node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.communicate()


def line(capsys: pytest.CaptureFixture[str], config: Path, run: Path, *more: str) -> str:
    """The printed line, for a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["train", "--config-file", str(config), "--output-dir", str(run), *more]
    options = ("--print", "torchrun", "--rendezvous", f"127.0.0.1:{port}", "--")
    return printed(capsys, *options, *words)


def trained(nodes: list[subprocess.Popen[str]]) -> None:
    """Wait until both have come to their end."""
    try:
        for node in nodes:
            _, errors = node.communicate(timeout=300)
            assert node.returncode == 0, errors
    finally:
        end(nodes)


def kill_one_after(path: Path, nodes: list[subprocess.Popen[str]]) -> None:
    """Kill the second node's process when there is a file; the other ends within LIMIT."""
    try:
        limit = time.monotonic() + 200
        while not path.exists() or not path.read_bytes():
            assert time.monotonic() < limit
            assert all(node.poll() is None for node in nodes), "it ended before"
            time.sleep(0.05)
        (killed,) = processes_of(nodes[1])
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        while any(processes_of(node) for node in nodes):
            assert time.monotonic() - began < LIMIT
            time.sleep(0.05)
        errors = [node.communicate(timeout=LIMIT)[1] for node in nodes]
        assert all(node.returncode for node in nodes)
        assert errors[0].count("error: another process of this run failed") == 1
        assert f"(pid: {killed})" in errors[1]
    finally:
        end(nodes)


@pytest.mark.slow  # trainings in processes of their own
def test_two_loopback_nodes_train_as_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TINY_CONFIG.replace("MAX_ITER: 12", "MAX_ITER: 4").replace(
        "BASE_LR: 1.0e-3", "BASE_LR: 1.0e-2, OPTIMIZER: sgd"
    )
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("HEAD: {CHANNELS: 16}", "HEAD: {CHANNELS: 16, DROPOUT: 0.0}"))
    alone = [sys.executable, "tools/train_net.py", "--config-file", str(config)]
    subprocess.run(
        [*alone, "--output-dir", tmp_path / "one"], cwd=ROOT, env=environment(), check=True
    )
    trained(start_nodes(line(capsys, config, tmp_path / "two")))
    one, two = (
        [json.loads(row) for row in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 4
    for first, second in zip(one, two, strict=True):
        losses = [name for name in first if name.startswith("loss_")]
        assert losses
        assert [second[name] for name in losses] == pytest.approx(
            [first[name] for name in losses], rel=2e-4
        )
    states = [
        torch.load(tmp_path / name / "checkpoint_0000004.pth", weights_only=True)["meta_arch"]
        for name in ("one", "two")
    ]
    assert states[0].keys() == states[1].keys()
    for name, expected in states[0].items():
        # Sums over images in another order, float32, four steps of SGD at a rate of 0.01.
        torch.testing.assert_close(states[1][name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow  # trainings in processes of their own
def test_a_killed_node_ends_both_and_a_resumed_run_has_the_bits_of_one_that_was_not_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        TINY_CONFIG.replace("MAX_ITER: 12", "MAX_ITER: 60").replace("PERIOD: 3", "PERIOD: 10")
    )
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    trained(start_nodes(line(capsys, config, whole)))
    first = resumed / "checkpoint_0000010.pth"
    kill_one_after(first, start_nodes(line(capsys, config, resumed)))
    last = "checkpoint_0000060.pth"
    assert not (resumed / last).exists()
    trained(start_nodes(line(capsys, config, resumed, "--resume")))
    assert checkpoint_differences(whole / last, resumed / last) == []
