"""The command line in processes of their own that start at once: importing torch takes seconds.

They are forked from a server that has imported the package and does nothing else. What they fork
by Python's default method is then pickled, as it is from Python 3.14 on.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

import torch

START_METHOD: Final = "forkserver"
CONTEXT = multiprocessing.get_context(START_METHOD)
CONTEXT.set_forkserver_preload(["t2sda.builtin", "t2sda.cli.train", "t2sda.training.run"])


def start_t2sda(
    arguments: Sequence[object], folder: Path, environment: Mapping[str, str], output: Path
) -> ForkServerProcess:
    """`t2sda ARGUMENTS`, started in `folder`; its streams are files in `output`: stdout, stderr."""
    words = [str(argument) for argument in arguments]
    process = CONTEXT.Process(target=_t2sda, args=(words, folder, dict(environment), output))
    process.start()
    return process


def run_t2sda(
    arguments: Sequence[object], folder: Path, environment: Mapping[str, str], timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """The same, to its end, which `timeout` seconds are enough for."""
    with tempfile.TemporaryDirectory() as output:
        process = start_t2sda(arguments, folder, environment, Path(output))
        returncode = end_of(process, timeout)
        texts = [(Path(output) / name).read_text("utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([], returncode, *texts)


def end_of(process: ForkServerProcess, timeout: float = 240) -> int:
    """The exit code, or minus the signal that killed it; after `timeout` seconds it is killed."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"still running after {timeout} s")
    return process.exitcode


def _t2sda(words: list[str], folder: Path, environment: dict[str, str], output: Path) -> None:
    from t2sda.cli.main import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.path.insert(0, "")
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        file = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    sys.exit(main(words))
