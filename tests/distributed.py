"""Runs a function on two gloo ranks in processes of their own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from t2sda.distributed import process_group
from tests.processes import START_METHOD

WORLD_SIZE = 2


def on_two_ranks(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `function(rank)` returns on either rank; it must be importable from a test module."""
    arguments = (function, folder, environments())
    mp.start_processes(_call, arguments, nprocs=WORLD_SIZE, start_method=START_METHOD)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(WORLD_SIZE)]


def environments() -> list[dict[str, str]]:
    """The variables that torchrun sets for each rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(WORLD_SIZE), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(WORLD_SIZE)]


def _call(
    rank: int, function: Callable[[int], Any], folder: Path, environments: list[dict[str, str]]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(environments[rank])
    with process_group(torch.device("cpu")):
        torch.save(function(rank), folder / f"rank{rank}.pt")
