"""`t2sda pseudo-label` from the command line: a run trains on its labels; what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import t2sda
from t2sda.cli.main import main
from t2sda.data.catalog import DrawnStreetsSpec
from t2sda.images import read_label
from t2sda.runtime.identity import model_digest
from tests.components import components_restored
from tests.deployed import write_checkpoint

SIZE = (64, 96)


@pytest.fixture(autouse=True)
def _tiny_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with components_restored():
        t2sda.datasets.register(DrawnStreetsSpec("tiny", "hazy", 3, 3, SIZE))
        yield


def test_a_run_trains_on_what_another_one_labelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "run")
    options = ["--rule", "cbst", "--portion", "0.5", "--output", "round_1"]
    assert main(["pseudo-label", "run", "--data", "tiny", *options]) == 0
    shown = capsys.readouterr().out
    assert "of the pixels are labelled" in shown
    assert "DATASETS.FILES '[round_1/dataset.yaml]' DATASETS.TARGET tiny_round_1" in shown
    record = json.loads(Path("round_1/pseudo_labels.json").read_text())
    assert record["model"] == f"sha256:{model_digest(checkpoint)}"
    assert (record["iteration"], record["branch"]) == (1, "student")
    assert record["dataset"]["images"] == 3
    assert {path.name for path in Path("round_1/labels").iterdir()} == {
        f"tiny_0000{index}.png" for index in range(3)
    }
    keys = [
        *("META_ARCH.PASSES", "[source, labelled_target]", "DATASETS.SOURCE", "tiny"),
        *("DATASETS.FILES", "[round_1/dataset.yaml]", "DATASETS.TARGET", "tiny_round_1"),
        *("MODEL.BACKBONE.TIMM_NAME", "test_resnet", "DATA.CROP_SIZE", "[64, 64]"),
        *("DATA.NUM_WORKERS", "0", "SOLVER.MAX_ITER", "1", "EVALUATION.PERIOD", "0"),
        *("DATA.MAX_CLASS_SHARE", "1.0", "LOGGING.TENSORBOARD", "false", "DEVICE", "cpu"),
    ]
    Path("config.yaml").write_text("{}")
    assert main(["train", "--config-file", "config.yaml", "--output-dir", "next", *keys]) == 0
    (line,) = Path("next/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss_labelled_target"] > 0


def test_argmax_labels_are_what_the_model_predicts(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run")
    assert (
        main(
            [
                "pseudo-label",
                str(checkpoint),
                "--data",
                "tiny",
                "--rule",
                "argmax",
                "--output",
                "all",
            ]
        )
        == 0
    )
    image = t2sda.datasets.open("tiny").load(1).image
    predicted = t2sda.load_model(checkpoint).predict(image)
    np.testing.assert_array_equal(read_label(Path("all/labels/tiny_00001.png")), predicted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "argmax", "--portion", "0.2"], "--portion: has no effect with --rule argmax"),
        (["--rule", "cbst", "--threshold", "0.5"], "--threshold: has no effect with --rule cbst"),
        (["--rule", "threshold", "--threshold", "1"], "give a number from 0 to below 1"),
        (["--rule", "cbst", "--portion", "0"], "above 0, at most 1"),
    ],
)
def test_a_constant_of_another_rule_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pseudo-label", "run", "--data", "tiny", "--output", "out", *options]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_rule_that_labels_nothing_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "run")
    options = ["--rule", "threshold", "--threshold", "0.99", "--output", "out"]
    assert main(["pseudo-label", "run", "--data", "tiny", *options]) == 2
    assert "the rule labels no pixel of the 3 images of 'tiny'" in capsys.readouterr().err


def test_pseudo_labels_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("DATASETS: {FILES: [round_9/dataset.yaml], TARGET: none}")
    words = ["train", "--config-file", "config.yaml", "--output-dir", "next"]
    keys = ["META_ARCH.PASSES", "[source, labelled_target]"]
    assert main([*words, *keys]) == 2
    assert "round_9/dataset.yaml: no such dataset file" in capsys.readouterr().err
