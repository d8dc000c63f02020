"""Metrics and images to MLflow, wherever MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.engine.run_ids import read_run_id, write_run_id
from t2sda.errors import UserError


class MlflowWriter:
    """One run of the experiment MLFLOW_EXPERIMENT_NAME, "t2sda" by default; see `SERVICES`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self._client: Any = None

    def start(self, first_iteration: int) -> None:
        """Open it; raises UserError if MLflow refuses."""
        from mlflow import MlflowClient, MlflowException

        try:
            self._client = MlflowClient()
            self._run = read_run_id(self.folder, "mlflow", first_iteration) or self._new_run()
        except MlflowException as error:
            raise UserError(
                f"LOGGING.WRITERS: mlflow: {error}; set MLFLOW_TRACKING_URI to a server's address"
            ) from None
        write_run_id(self.folder, "mlflow", self._run)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Log numbers; what MLflow takes for no name gets underscores."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        named = {re.sub(r"[^\w\-./ :]", "_", name): value for name, value in metrics.items()}
        logged = [Metric(name, value, now, iteration) for name, value in named.items()]
        self._asked(self._client.log_batch, metrics=logged)

    def write_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Log images."""
        for name, image in images.items():
            self._asked(self._client.log_image, image, key=name, step=iteration)

    def close(self) -> None:
        """Mark the run as ended."""
        if self._client is not None:
            self._asked(self._client.set_terminated)

    def __str__(self) -> str:
        return "mlflow"

    def _new_run(self) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "t2sda")
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        run = self._client.create_run(experiment, run_name=self.folder.name).info.run_id
        params = [Param(key, str(value)) for key, value in self.settings.items()]
        for first in range(0, len(params), 100):  # as many as a server takes at once
            self._client.log_batch(run, params=params[first : first + 100])
        return run

    def _asked(self, call: Any, *arguments: Any, **named: Any) -> None:
        """Call with the run's id; a refusal is an OSError, as of a disk: training goes on."""
        from mlflow import MlflowException

        try:
            call(self._run, *arguments, **named)
        except MlflowException as error:
            raise OSError(str(error)) from None
