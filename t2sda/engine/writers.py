"""The table of writers: where metrics and images go besides `metrics.jsonl`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode

from t2sda.config import SCHEMA, Field
from t2sda.config.schema import flat_items
from t2sda.engine.metrics import MetricWriter, TensorBoardWriter
from t2sda.engine.mlflow_writer import MlflowWriter
from t2sda.engine.wandb_writer import WandbWriter
from t2sda.errors import UserError


class Destination(NamedTuple):
    """A kind of writer."""

    package: str
    """What it needs to be installed, as it is imported."""
    build: Callable[[Path, Mapping[str, Any]], MetricWriter]
    """Made of the run's folder, whose name the run gets, and the settings by dotted key."""


SERVICES = {
    "wandb": Destination("wandb", WandbWriter),
    "mlflow": Destination("mlflow", MlflowWriter),
}
"""By the name in LOGGING.WRITERS, which is that of the extra as well.

Their packages are imported when a run starts, never before.
"""
WRITERS = {
    "tensorboard": Destination(
        "tensorboard", lambda folder, settings: TensorBoardWriter(folder / "tensorboard")
    ),
    **SERVICES,
}

SCHEMA.declare(
    "LOGGING",
    {
        "WRITERS": Field(
            (),
            "further places that metrics and images go to: Weights & Biases (WANDB_* variables say "
            "which project), MLflow (MLFLOW_TRACKING_URI says where)",
            element=str,
            choices=tuple(SERVICES),
        )
    },
)


def image_writers(cfg: CfgNode) -> list[str]:
    """Names of the run's writers, in WRITERS: all of them take images."""
    return [
        *(["tensorboard"] if cfg.LOGGING.TENSORBOARD else []),
        *dict.fromkeys(cfg.LOGGING.WRITERS),
    ]


def check_writers(cfg: CfgNode) -> None:
    """Raise UserError if the package of a writer is not installed."""
    for name in image_writers(cfg):
        if importlib.util.find_spec(WRITERS[name].package) is None:
            raise UserError(
                f"LOGGING.WRITERS: {name} is not installed here; `pip install 't2sda[{name}]'`, or "
                f"remove it"
            )


def build_writers(cfg: CfgNode, output_dir: Path) -> list[MetricWriter]:
    """The writers that LOGGING names."""
    settings = dict(flat_items(cfg))
    return [WRITERS[name].build(output_dir, settings) for name in image_writers(cfg)]
