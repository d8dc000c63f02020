"""Metrics and images to Weights & Biases, or to files for it where WANDB_MODE is offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from t2sda.engine.run_ids import read_run_id, write_run_id
from t2sda.errors import UserError


class WandbWriter:
    """One run of a project; a resumed training goes on in it. See `SERVICES` for the arguments."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self._run: Any = None

    def start(self, first_iteration: int) -> None:
        """Open it; raises UserError if nobody is logged in."""
        import wandb

        known = read_run_id(self.folder, "wandb", first_iteration)
        try:
            self._run = wandb.init(
                dir=self.folder,
                name=self.folder.name,
                config=self.settings,
                id=known,
                resume="allow",
            )
        except wandb.Error as error:
            raise UserError(
                f"LOGGING.WRITERS: wandb: {error}; run `wandb login`, or set WANDB_MODE=offline"
            ) from None
        self._run.define_metric("*", step_metric="iteration")  # a resumed run may repeat some
        write_run_id(self.folder, "wandb", self._run.id)

    def write(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Log numbers; a refusal is an OSError, as of a disk: training goes on."""
        import wandb

        try:
            self._run.log({"iteration": iteration, **metrics})
        except wandb.Error as error:
            raise OSError(str(error)) from None

    def write_images(self, iteration: int, images: Mapping[str, np.ndarray]) -> None:
        """Log images."""
        import wandb

        self.write(iteration, {name: wandb.Image(image) for name, image in images.items()})

    def close(self) -> None:
        """Wait until all is sent or written."""
        if self._run is not None:
            self._run.finish()

    def __str__(self) -> str:
        return "wandb"
