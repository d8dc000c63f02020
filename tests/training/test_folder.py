"""Commands know the datasets that a run was trained with, without `--file`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2sda.cli.main import main
from t2sda.data.catalog import DATASETS
from t2sda.errors import UserError
from t2sda.training.folder import register_datasets_of_runs
from tests.components import components_restored
from tests.deployed import write_checkpoint

OWN = """
name: own
root: own
images: images/*.png
labels: labels/{stem}.png
taxonomy: cityscapes_19
"""


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run whose configuration names own.yaml, and the set that this describes."""
    monkeypatch.chdir(tmp_path)
    dice = np.random.default_rng(0)
    for folder, shape in (("images", (64, 96, 3)), ("labels", (64, 96))):
        Path("own", folder).mkdir(parents=True)
        for stem in "ab":
            pixels = dice.integers(0, 19, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(f"own/{folder}/{stem}.png")
    Path("own.yaml").write_text(OWN)
    write_checkpoint(Path("run"))
    Path("run/config.yaml").write_text("DATASETS: {FILES: [own.yaml]}")
    with components_restored():
        yield


@pytest.mark.parametrize("model", ["run", "run/checkpoint_0000001.pth"])
def test_a_set_of_the_runs_files_is_scored(model: str) -> None:
    assert main(["evaluate", model, "--data", "own", "--device", "cpu"]) == 0


def test_it_is_analyzed() -> None:
    words = ["--data", "own", "own", "--parts", "similarity", "--device", "cpu"]
    assert main(["analyze", "run", *words]) == 0


def test_it_is_in_a_reports_gallery(capsys: pytest.CaptureFixture[str]) -> None:
    with components_restored():  # as in a process of its own
        assert main(["evaluate", "run", "--data", "own", "--device", "cpu"]) == 0
    assert "own" not in DATASETS
    assert main(["report", "run", "--output", "report.html", "--device", "cpu"]) == 0
    assert "not in the gallery" not in capsys.readouterr().out


def test_pseudo_labels_of_it_are_trained_on_with_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--data", "own", "--rule", "argmax", "--output", "labels_1", "--device", "cpu"]
    assert main(["pseudo-label", "run", *words]) == 0
    assert "DATASETS.FILES '[own.yaml, labels_1/dataset.yaml]'" in capsys.readouterr().out


def test_files_are_read_only_where_a_name_is_unknown() -> None:
    Path("own.yaml").write_text("no dataset")
    assert register_datasets_of_runs([Path("run")], ["streets_hazy_val"]) == []
    with pytest.raises(UserError, match=r"own\.yaml"):
        register_datasets_of_runs([Path("run")], ["own"])


def test_a_file_that_is_gone_and_a_folder_without_configuration_say_nothing() -> None:
    Path("own.yaml").unlink()
    Path("bare").mkdir()
    models = [Path("run"), Path("bare"), Path("student.onnx")]
    assert register_datasets_of_runs(models, ["own"]) == []
