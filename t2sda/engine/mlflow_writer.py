"""Metrics and images to MLflow, wherever MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

import numpy as np

from t2sda.engine.service_writer import ServiceWriter


class MlflowWriter(ServiceWriter):
    """A run of the experiment MLFLOW_EXPERIMENT_NAME, "t2sda" by default."""

    name = "mlflow"
    advice = "set MLFLOW_TRACKING_URI to a server's address"

    def _refusal(self) -> type[Exception]:
        from mlflow import MlflowException

        return MlflowException

    def _open(self, run_id: str | None) -> str:
        from mlflow import MlflowClient, entities

        self._client = client = MlflowClient()
        if run_id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "t2sda")
            known = client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else client.create_experiment(name)
            run_id = client.create_run(experiment, run_name=self.folder.name).info.run_id
            params = [entities.Param(key, str(value)) for key, value in self.settings.items()]
            for first in range(0, len(params), 100):  # as many as a server takes at once
                client.log_batch(run_id, params=params[first : first + 100])
        self._run = run_id
        return run_id

    def _log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now, no_name = int(1000 * time.time()), re.compile(r"[^\w\-./ :]")
        logged = [
            Metric(no_name.sub("_", name), value, now, iteration) for name, value in metrics.items()
        ]
        self._client.log_batch(self._run, metrics=logged)

    def _log_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            self._client.log_image(self._run, image, key=name, step=iteration)

    def _end(self) -> None:
        self._client.set_terminated(self._run)
