"""A small schema and small YAML files for the tests of the configuration."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from t2sda.config import Field, Schema


@pytest.fixture
def schema() -> Schema:
    """A stand-alone schema with a setting of every type, a conditional group and a rule."""
    schema = Schema()
    schema.declare("", {"OUTPUT_DIR": Field("output", "Folder."), "SEED": Field(0, "Seed.", low=0)})
    schema.declare(
        "SOLVER",
        {
            "BASE_LR": Field(6e-5, "Learning rate.", low=0.0, exclusive_low=True),
            "NUM_STEPS": Field(40, "Steps.", unit="iterations", low=1),
            "AMP": Field(False, "Mixed precision."),
            "BETAS": Field((0.9, 0.999), "Momenta.", low=0.0, high=1.0, length=2),
        },
    )
    schema.declare(
        "MODEL.BACKBONE",
        {
            "NAME": Field("resnet", "Which.", choices=("resnet", "mit")),
            "WEIGHTS": Field(None, "Checkpoint.", type=str, optional=True),
            "LEVELS": Field((), "Levels.", element=int, low=0),
        },
    )
    schema.declare(
        "MODEL.BACKBONE",
        {"DROP_PATH": Field(0.1, "Rate.", low=0.0, high=1.0)},
        when=lambda cfg: cfg.MODEL.BACKBONE.NAME == "mit",
        when_text="MODEL.BACKBONE.NAME is mit",
    )
    return schema


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes dedented text to a file in tmp_path and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write
