"""Under which id a service knows a run: kept in the run's folder, so that a resumed one goes on."""

from __future__ import annotations

from pathlib import Path

from t2sda.files import atomic_write, is_regular_file, read_small_file


def read_run_id(folder: Path, service: str, first_iteration: int) -> str | None:
    """The id that a resumed run has at a service; None for one that begins."""
    path = _path(folder, service)
    if first_iteration == 0 or not is_regular_file(path):
        return None
    return read_small_file(path).decode("utf-8", "replace").strip() or None


def write_run_id(folder: Path, service: str, run_id: str) -> None:
    """Keep an id for `read_run_id`."""
    atomic_write(_path(folder, service), f"{run_id}\n")


def _path(folder: Path, service: str) -> Path:
    return folder / f"{service}_run_id.txt"
