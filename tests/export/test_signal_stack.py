"""Signals after OpenVINO has compiled: the process must survive them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployed import DYNAMIC, shared_export

PROGRAM = """
import signal, subprocess, sys
from t2sda import load_model
signal.signal(signal.SIGCHLD, lambda number, frame: print("a child ended", flush=True))
load_model(sys.argv[1], "openvino")
print("loaded", flush=True)
subprocess.run([sys.executable, "-c", ""], check=True)
"""


def test_a_signal_handler_of_python_runs_after_a_model_was_loaded(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    path = shared_export(tmp_path_factory, DYNAMIC)
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert "a child ended" in run.stdout.splitlines()[-1]
