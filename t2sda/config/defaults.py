"""Settings that no component owns."""

from __future__ import annotations

from t2sda.config.fields import Field
from t2sda.config.schema import SCHEMA

SCHEMA.declare(
    "",
    {
        "OUTPUT_DIR": Field("output", "Folder of the run: checkpoints, metrics, resolved config."),
        "PLUGINS": Field(
            (),
            "Modules or .py files that register components of the run, as --plugin: code that "
            "`train` runs. A run's config.yaml names those it was started with.",
            element=str,
        ),
        "SEED": Field(
            0, "Seed that all randomness of the run follows from.", low=0, high=2**63 - 1
        ),
        "DEVICE": Field(
            "auto",
            "Where to compute; auto takes the GPU where there is one.",
            choices=("auto", "cpu", "cuda"),
        ),
    },
)
