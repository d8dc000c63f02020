"""Which device computes, and how repeatably."""

from __future__ import annotations

import os

import torch
from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.errors import UserError
from t2sda.modeling.branch import Branch

SCHEMA.declare(
    "SOLVER",
    {
        "CHANNELS_LAST": Field(
            False, "weights and features in channels-last order: faster for depthwise CNNs"
        ),
        "COMPILE": Field(
            False, "torch.compile backbone and heads; takes minutes before the first step"
        ),
        "DETERMINISTIC": Field(
            False,
            "refuse operations whose result varies from run to run on a GPU; on a CPU runs are "
            "repeatable without it",
        ),
    },
)


def choose_device(name: str) -> torch.device:
    """The device that DEVICE asks for; with several ranks, this rank's own GPU.

    Args:
        name: "auto", "cpu", "cuda", or "cuda:N" for a certain GPU of a single process.

    Raises:
        UserError: if a GPU is asked for and there is none, or not that one. Only "auto" may
            fall back to the CPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        raise UserError(
            f"DEVICE: {name} was asked for, but this machine has no usable GPU (torch "
            f"{torch.__version__}, built with {built}); use DEVICE cpu, or auto to take a GPU "
            f"only where there is one. `t2sda env` shows what works"
        )
    if ":" in name:
        return _numbered(name)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} on this machine finds {torch.cuda.device_count()} GPUs; start "
            f"torchrun with --nproc_per_node={torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _numbered(name: str) -> torch.device:
    device = torch.device(name)
    if device.index >= torch.cuda.device_count():
        raise UserError(
            f"{name}: this machine has {torch.cuda.device_count()} usable GPUs, which count from "
            f"cuda:0 on"
        )
    torch.cuda.set_device(device)
    return device


def use_deterministic_algorithms() -> None:
    """Refuse operations that are not repeatable; must run before the first CUDA operation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def lay_out_(branch: Branch, cfg: CfgNode) -> None:
    """Memory format and compilation of the networks, in place; state dicts keep their keys."""
    if cfg.SOLVER.CHANNELS_LAST:
        branch.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if cfg.SOLVER.COMPILE:
        for network in branch.model.networks:
            network.compile()
