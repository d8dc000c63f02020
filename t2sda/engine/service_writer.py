"""What writers to a service have in common: one run there, and refusals that end no training."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from t2sda.errors import UserError
from t2sda.files import atomic_write, is_regular_file, read_small_file


class ServiceWriter(ABC):
    """One run at a service; a resumed training goes on in it, by the id that lies in its folder.

    Args:
        folder: of the run, whose name it gets.
        settings: the configuration, by dotted key.

    Attributes:
        name: of the service, as in LOGGING.WRITERS.
        advice: what to do where it refuses to begin.
    """

    name: ClassVar[str]
    advice: ClassVar[str]

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self._run: Any = None

    @abstractmethod
    def _refusal(self) -> type[Exception]:
        """What the service's package raises."""

    @abstractmethod
    def _open(self, run_id: str | None) -> str:
        """Set `_run`: the one of this id, or a new one; returns its id."""

    @abstractmethod
    def _log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Send numbers."""

    @abstractmethod
    def _log_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Send images."""

    @abstractmethod
    def _end(self) -> None:
        """Wait until all is sent, and mark the run as ended."""

    def start(self, first_iteration: int) -> None:
        """Open the run; raises UserError if the service refuses."""
        path = self.folder / f"{self.name}_run_id.txt"
        known = None
        if first_iteration > 0 and is_regular_file(path):
            known = read_small_file(path).decode("utf-8", "replace").strip() or None
        try:
            run_id = self._open(known)
        except self._refusal() as error:
            raise UserError(f"LOGGING.WRITERS: {self.name}: {error}; {self.advice}") from None
        atomic_write(path, f"{run_id}\n")

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Send numbers."""
        with self._as_os_error():
            self._log(iteration, metrics)

    def write_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Send images."""
        with self._as_os_error():
            self._log_images(iteration, images)

    def close(self) -> None:
        """End the run, if it was opened."""
        if self._run is not None:
            with self._as_os_error():
                self._end()

    def __str__(self) -> str:
        return self.name

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        """A refusal is that of a disk: said once, and training goes on (`MetricsHook`)."""
        try:
            yield
        except self._refusal() as error:
            raise OSError(str(error)) from None
