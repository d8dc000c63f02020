"""What a run prints before its first step, and what it says of data that changed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import t2sda
from t2sda.cli.main import main
from t2sda.config import load_config
from t2sda.data.catalog import DatasetSpec, DrawnStreetsSpec
from t2sda.data.taxonomies import Taxonomy
from t2sda.errors import UserError
from t2sda.evaluation.entries import read_entries
from t2sda.training.plan import plan_text
from t2sda.training.resuming import changed_data
from tests.components import components_restored
from tests.integration.conftest import ROOT, environment
from tests.processes import run_t2sda
from tests.test_api import CONFIG, TINY

MOST_LINES = 12
SETTINGS = (
    *("MODEL.BACKBONE.TIMM_NAME", "test_resnet", "MODEL.BACKBONE.WEIGHTS", ""),
    *("SOLVER.BATCH_SIZE", "2", "DATA.CROP_SIZE", "[64, 64]", "DATA.NUM_WORKERS", "0"),
    *("LOGGING.PERIOD", "1", "LOGGING.TENSORBOARD", "false", "EVALUATION.PERIOD", "0"),
    *("DEVICE", "cpu", "RARE_CLASSES.ENABLED", "false"),
)


def lines_before_the_first_step(run: Path, *words: str, processes: int = 1) -> list[str]:
    """Of standard error, whatever it is about, and output."""
    train = ("--config-file", "quickstart.yaml", "--output-dir", str(run), *words, *SETTINGS)
    if processes > 1:
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
        done = subprocess.run(
            [sys.executable, *launcher, "tools/train_net.py", *train],
            cwd=ROOT,
            env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT)])},
            capture_output=True,
            text=True,
            timeout=240,
        )
    else:
        done = run_t2sda(("train", *train), ROOT, environment())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("iteration "))
    return [*done.stderr.splitlines(), *lines[:first]]


def test_few_lines_come_before_the_first_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fresh = lines_before_the_first_step(run, "SOLVER.MAX_ITER", "1")
    assert len(fresh) <= MOST_LINES, fresh
    assert any("T2SDA" in line for line in fresh)
    assert any("plan.txt" in line for line in fresh)
    cfg = load_config(run / "config.yaml")
    assert (run / "plan.txt").read_text() == plan_text(cfg) + "\n"
    log = (run / "log.txt").read_text()
    assert all(line.removeprefix("warning: ") in log for line in fresh)
    resumed = lines_before_the_first_step(run, "--resume", "SOLVER.MAX_ITER", "2")
    assert len(resumed) <= MOST_LINES, resumed
    assert any("SOLVER.MAX_ITER was 1, is 2" in line for line in resumed)


@pytest.mark.slow
def test_two_ranks_print_no_more(tmp_path: Path) -> None:
    lines = lines_before_the_first_step(tmp_path / "run", "SOLVER.MAX_ITER", "1", processes=2)
    assert len(lines) <= MOST_LINES, lines
    assert sum("T2SDA" in line for line in lines) == 1
    assert any("2 process(es)" in line for line in lines)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with components_restored():
        yield


def make_image(folder: Path, stem: str) -> None:
    dice = np.random.default_rng(0)
    for kind, high, depth in (("images", 256, (3,)), ("labels", 2, ())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        pixels = dice.integers(0, high, (64, 64, *depth), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / kind / f"{stem}.png")


def test_a_resumed_run_whose_data_changed_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taxonomy = Taxonomy("two", ("left", "right"), ((255, 0, 0), (0, 255, 0)))
    root = str(tmp_path / "data")
    t2sda.datasets.register(DatasetSpec("own", root, "images/*.png", "labels/{stem}.png", taxonomy))
    for stem in ("a", "b"):
        make_image(tmp_path / "data", stem)
    overrides = TINY | {"DATASETS.SOURCE": "own", "EVALUATION.PERIOD": 0}
    overrides |= {"EVALUATION.DATASETS": [], "DATA.MAX_CLASS_SHARE": 1.0}

    def warnings(max_iter: int) -> str:
        caplog.clear()
        settings = overrides | {"SOLVER.MAX_ITER": max_iter}
        t2sda.train(CONFIG, overrides=settings, output_dir=tmp_path / "run", resume=True)
        return " ".join(r.message for r in caplog.records if r.levelno == logging.WARNING)

    assert "images" not in warnings(1)
    assert "images" not in warnings(2)
    make_image(tmp_path / "data", "c")
    found = warnings(3)
    assert "the resumed run will differ from an uninterrupted one" in found
    assert "the source 'own' had 2 images, has 3" in found
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / "c.png").rename(tmp_path / "data" / kind / "d.png")
    assert "the source 'own' had 3 images, has 3, of other names" in warnings(4)


def test_other_datasets_are_a_changed_setting_and_the_same_data_is_none() -> None:
    one = {"source": [{"name": "a", "images": 2, "files_sha256": "x"}]}
    other = {"source": [{"name": "b", "images": 3, "files_sha256": "y"}]}
    assert changed_data(one, one) == []
    assert changed_data(one, other) == []


def test_scoring_needs_the_checkpoint_and_the_scored_set_alone(tmp_path: Path) -> None:
    """Also of a run whose source is gone; the end of a run and --eval-only write one entry."""
    run = tmp_path / "run"
    path = run / "evaluation.json"
    with components_restored():
        for name, seed in (("tiny_train", 0), ("tiny_val", 1)):
            t2sda.datasets.register(DrawnStreetsSpec(name, "clear", seed, 3, (64, 96)))
        t2sda.train(CONFIG, overrides=TINY, output_dir=run)
        (at_the_end,) = read_entries(path)
        assert at_the_end.model == "checkpoint_0000002.pth"
        assert (at_the_end.iteration, at_the_end.branch) == (2, "student")
    with components_restored():  # tiny_train is unknown
        t2sda.datasets.register(DrawnStreetsSpec("tiny_val", "clear", 1, 3, (64, 96)))
        words = [word for key, value in TINY.items() for word in (key, str(value))]
        arguments = ["train", "--config-file", CONFIG, "--output-dir", str(run), "--eval-only"]
        assert main([*arguments, *words]) == 0
    (scored,) = read_entries(path)
    assert (scored.digest, scored.key) == (at_the_end.digest, at_the_end.key)
    assert str(scored.scores) == str(at_the_end.scores)


def test_a_file_of_something_else_is_named_before_the_first_step(tmp_path: Path) -> None:
    with components_restored():
        for name in ("tiny_train", "tiny_val"):
            t2sda.datasets.register(DrawnStreetsSpec(name, "clear", 0, 3, (64, 96)))
        (tmp_path / "evaluation.json").write_text('{"evaluation/tiny_val/mIoU": 0.5}')
        with pytest.raises(UserError, match="evaluation.json: not a file of scores"):
            t2sda.train(CONFIG, overrides=TINY, output_dir=tmp_path)
    assert not list(tmp_path.glob("*.pth"))
