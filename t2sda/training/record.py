"""run.json: what a run was trained by: command, versions, commit, host, machine, time, memory."""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from t2sda.distributed import world_size
from t2sda.engine.checkpoint import library_versions
from t2sda.engine.hooks import Hook, Stage
from t2sda.errors import UserError
from t2sda.files import atomic_write, json_text, read_small_file

logger = logging.getLogger(__name__)


FILE_NAME = "run.json"
FORMAT = "t2sda run 1"
MIB = 1 << 20
_ABOVE_ALL = 1e12
"""Seconds, MiB: what is more is damage."""


class RunRecord(Hook):
    """Writes run.json in a run's folder: an entry for each time that it was started.

    Args:
        folder: of the run.
        device: of the main process.
        is_ended: whether a hook has ended the run before its last step.
    """

    stage = Stage.METRICS

    def __init__(
        self, folder: Path, device: torch.device, is_ended: Callable[[], bool] = lambda: False
    ) -> None:
        self.path = folder / FILE_NAME
        self.device = device
        self.is_ended = is_ended
        self._earlier: list[dict[str, Any]] = []
        self._session: dict[str, Any] = {}
        self._began = 0.0

    def before_train(self, first_iteration: int) -> None:
        """Add an entry; that of a run which is killed stays without an end."""
        self._earlier = sessions_of(self.path) if first_iteration else []
        self._began = time.perf_counter()
        self._session = {
            "started": _now(),
            "first_iteration": first_iteration,
            "command": list(sys.argv),
            "folder": str(Path.cwd()),
            "versions": library_versions(),
            "commit": commit(),
            "host": platform.node(),
            "machine": machine(self.device),
            "processes": world_size(),
        }
        self._write()

    def after_train(self, next_iteration: int) -> None:
        """Complete the entry; a disk that is full by now is no reason to call the run failed."""
        self._session |= {
            "ended": _now(),
            "next_iteration": next_iteration,
            "ended_by_hook": self.is_ended(),
            "seconds": round(time.perf_counter() - self._began, 1),
            "peak_memory_mib": peak_memory(),
            "peak_gpu_memory_mib": peak_gpu_memory(self.device),
        }
        try:
            self._write()
        except UserError as error:
            logger.warning("%s", error)

    def _write(self) -> None:
        content = {"format": FORMAT, "sessions": [*self._earlier, self._session]}
        atomic_write(self.path, json_text(content, indent=1) + "\n")


def sessions_of(path: Path) -> list[dict[str, Any]]:
    """The entries of a run.json, the first one first; none where it is missing or damaged."""
    with suppress(UserError, ValueError, TypeError, KeyError, RecursionError):
        sessions = json.loads(read_small_file(path))["sessions"]
        if all(map(_is_session, sessions)):
            return list(sessions)
    return []


def _is_session(entry: Any) -> bool:
    """Whether an entry is as `RunRecord` writes it, as far as somebody counts on it."""
    if not isinstance(entry, dict):
        return False
    parts = [entry.get("versions") or {}, entry.get("machine") or {}]
    if not all(isinstance(part, dict) for part in parts):
        return False
    numbers = ("seconds", "peak_memory_mib", "peak_gpu_memory_mib")
    values = [*(entry.get(name) for name in numbers), parts[1].get("memory_mib")]
    return all(
        value is None or (type(value) in (int, float) and 0 <= value < _ABOVE_ALL)
        for value in values
    )


def machine(device: torch.device) -> Mapping[str, Any]:
    """Kind of the processor, its cores, memory and the GPU; no name and no address."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def commit() -> str | None:
    """Of the source tree that this is imported from, with + where files were changed since.

    None for an installed package, or without git.
    """
    tree = Path(__file__).parents[2]
    if not (tree / ".git").exists():
        return None
    head, changes = _git(tree, "rev-parse", "HEAD"), _git(tree, "status", "--porcelain", "-uno")
    return None if head is None else head + ("+" if changes else "")


def peak_memory() -> int:
    """Most memory that this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # KiB on Linux


def peak_gpu_memory(device: torch.device) -> int | None:
    """Most memory that tensors of this process had on its GPU, in MiB; None without one."""
    return torch.cuda.max_memory_allocated(device) // MIB if device.type == "cuda" else None


def _git(tree: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(tree), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str | None:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
