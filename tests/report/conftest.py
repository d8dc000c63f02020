"""Runs of a second: two seeds of one method, one of another, on drawn streets of 64 x 96."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import t2sda
from t2sda.cli.main import main
from t2sda.data.catalog import DrawnStreetsSpec
from tests.components import components_restored

TINY: dict[str, Any] = {
    **{"DATASETS.SOURCE": "tiny_train", "EVALUATION.DATASETS": ["tiny_val"]},
    **{"MODEL.BACKBONE.TIMM_NAME": "test_resnet", "MODEL.BACKBONE.WEIGHTS": ""},
    **{"MODEL.HEAD.CHANNELS": 16, "DATA.CROP_SIZE": [64, 64], "DATA.NUM_WORKERS": 0},
    **{"SOLVER.MAX_ITER": 4, "SOLVER.BATCH_SIZE": 2, "SOLVER.WARMUP_ITERS": 0},
    **{"EVALUATION.PERIOD": 2, "LOGGING.PERIOD": 1},
    **{"LOGGING.TENSORBOARD": False, "DEVICE": "cpu"},
}


@contextmanager
def tiny_datasets() -> Iterator[None]:
    """The datasets that the runs name, until the block ends."""
    with components_restored():
        for name, seed in (("tiny_train", 0), ("tiny_val", 1)):
            t2sda.datasets.register(DrawnStreetsSpec(name, "clear", seed, 4, (64, 96)))
        yield


@pytest.fixture
def _datasets() -> Iterator[None]:
    with tiny_datasets():
        yield


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of `slow_0`, `slow_1` and `fast`."""
    folder = tmp_path_factory.mktemp("runs")
    with tiny_datasets():
        for name, rate, seed in (("slow_0", 1e-4, 0), ("slow_1", 1e-4, 1), ("fast", 1e-2, 0)):
            settings = {**TINY, "SOLVER.BASE_LR": rate, "SEED": seed}
            t2sda.train("quickstart_source_only.yaml", overrides=settings, output_dir=folder / name)
    return [folder / name for name in ("slow_0", "slow_1", "fast")]


@pytest.fixture(scope="session")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all of them."""
    output = tmp_path_factory.mktemp("report") / "report.html"
    with tiny_datasets():
        assert main(["report", *map(str, runs), "--output", str(output), "--device", "cpu"]) == 0
    return output
