"""Metrics and images to Weights & Biases, or to files for it where WANDB_MODE is offline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from t2sda.engine.service_writer import ServiceWriter


class WandbWriter(ServiceWriter):
    """WANDB_* variables say which project it is, and whether it is written to files."""

    name = "wandb"
    advice = "run `wandb login`, or set WANDB_MODE=offline"

    def _refusal(self) -> type[Exception]:
        import wandb

        return wandb.Error

    def _open(self, run_id: str | None) -> str:
        import wandb

        config = self.settings
        place = self.folder
        self._run = wandb.init(dir=place, name=place.name, config=config, id=run_id, resume="allow")
        self._run.define_metric("*", step_metric="iteration")  # a resumed run may repeat some
        return self._run.id

    def _log(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._run.log({"iteration": iteration, **metrics})

    def _log_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        import wandb

        self._log(iteration, {name: wandb.Image(image) for name, image in images.items()})

    def _end(self) -> None:
        self._run.finish()
