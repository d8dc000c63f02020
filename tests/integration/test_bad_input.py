"""What a user can get wrong: one message that says what, where and what to do; exit code 2."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.full_disk import file_size_limit
from tests.integration.conftest import Run

PLUGIN = """
from t2sda.data.catalog import DatasetSpec, register_dataset
from t2sda.data.taxonomies import CITYSCAPES_19

register_dataset(
    DatasetSpec(
        name="broken", root="broken", images="images/*.png", labels="labels/{stem}.png",
        taxonomy=CITYSCAPES_19,
    )
)
"""


@pytest.fixture
def broken(tmp_path: Path, tiny_config: Path) -> Path:
    """A run's folder with a dataset of one 80x100 image, for a test to break."""
    for folder, shape in (("images", (80, 100, 3)), ("labels", (80, 100))):
        (tmp_path / "broken" / folder).mkdir(parents=True)
        image = np.random.default_rng(0).integers(0, 19, shape, dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"broken/{folder}/a.png")
    (tmp_path / "my_data.py").write_text(PLUGIN)
    return tmp_path


def refused(result: subprocess.CompletedProcess[str], pattern: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    error = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert error[0].startswith("error: "), result.stderr
    assert re.search(pattern, result.stderr), result.stderr


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["SOLVER.MAX_ITERS", "5"], "SOLVER.MAX_ITER"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER.*many"),
        (["SOLVER.BASE_LR", "-1"], "SOLVER.BASE_LR"),
        (["DATASETS.SOURCE", "rendered_train"], "set T2SDA_DATASETS to the folder"),
        (["DATASETS.SOURCE", "nowhere"], "no dataset is called 'nowhere'"),
        (["DATA.CROP_SIZE", "[300, 300]"], "is smaller than DATA.CROP_SIZE"),
        (["SOLVER.BATCH_SIZE", "3", "SOLVER.ACCUMULATION", "2"], "cannot be shared out"),
        (["MODEL.BACKBONE.TIMM_NAME", "resnet5"], "resnet50"),
        (["MODEL.BACKBONE.WEIGHTS", "none.pth"], "none.pth"),
        (["DEVICE", "cuda"], "no usable GPU"),
        (["EVALUATION.DATASETS", "[camvid_val]"], "set T2SDA_DATASETS to the folder"),
        (["SOLVER.MAX_ITER"], "SOLVER.MAX_ITER"),
    ],
)
def test_settings(
    t2sda_inline: Run, tiny_config: Path, tmp_path: Path, overrides: list[str], pattern: str
) -> None:
    if overrides[0] == "DEVICE" and __import__("torch").cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    run = tmp_path / "run"
    result = t2sda_inline("train", "--config-file", tiny_config, "--output-dir", run, *overrides)
    refused(result, pattern)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("break_it", "pattern"),
    [
        ("remove the label", r"images/a\.png has no label; expected .*labels/a\.png"),
        ("wrong id", r"labels/a\.png: label ids 19 are unknown"),
        ("truncate", r"images/a\.png: cannot be decoded"),
    ],
)
def test_files(t2sda: Run, broken: Path, num_workers: int, break_it: str, pattern: str) -> None:
    image, label = broken / "broken/images/a.png", broken / "broken/labels/a.png"
    if break_it == "remove the label":
        label.unlink()
    elif break_it == "wrong id":
        Image.fromarray(np.full((80, 100), 19, np.uint8)).save(label)
    else:
        image.write_bytes(image.read_bytes()[:-300])
    result = t2sda(
        *("train", "--config-file", "tiny.yaml", "--output-dir", "run", "--plugin", "my_data"),
        *("DATASETS.SOURCE", "broken", "DATA.NUM_WORKERS", num_workers),
        cwd=broken,
    )
    refused(result, pattern)


def test_checkpoint_of_another_architecture(
    t2sda_inline: Run, tiny_config: Path, tmp_path: Path
) -> None:
    arguments = ["train", "--config-file", tiny_config, "SOLVER.MAX_ITER", "1", "--output-dir"]
    assert t2sda_inline(*arguments, tmp_path / "run").returncode == 0
    for extra in (["--resume"], ["--eval-only", "EVALUATION.DATASETS", "[streets_hazy_val]"]):
        result = t2sda_inline(*arguments, tmp_path / "run", "MODEL.HEAD.CHANNELS", "8", *extra)
        refused(result, "a checkpoint of another architecture.*of another shape")


def test_unwritable_output_folder(t2sda_inline: Run, tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = t2sda_inline(
        "train", "--config-file", tiny_config, "--output-dir", tmp_path / "file/run"
    )
    refused(result, "cannot write to .*file/run")


def test_full_disk_keeps_the_last_checkpoint(
    t2sda_inline: Run, tiny_config: Path, tmp_path: Path
) -> None:
    train = ["train", "--config-file", tiny_config, "--output-dir", tmp_path / "run"]
    assert t2sda_inline(*train, "SOLVER.MAX_ITER", 1).returncode == 0
    (checkpoint,) = (tmp_path / "run").glob("*.pth")
    before = checkpoint.read_bytes()
    with file_size_limit(len(before) // 2):
        result = t2sda_inline(*train, "SOLVER.MAX_ITER", 4, "--resume")
    refused(result, "the checkpoint cannot be written .*earlier checkpoints are intact")
    assert [path.name for path in (tmp_path / "run").glob("checkpoint*")] == [checkpoint.name]
    assert checkpoint.read_bytes() == before


def test_loss_that_is_not_finite(t2sda_inline: Run, tiny_config: Path, tmp_path: Path) -> None:
    result = t2sda_inline(
        *("train", "--config-file", tiny_config, "--output-dir", tmp_path / "run"),
        *("SOLVER.BASE_LR", "1e30", "SOLVER.WARMUP_ITERS", "0", "CHECKPOINT.PERIOD", "1"),
    )
    refused(result, r"iteration \d+: not finite: loss_source=")
    assert list((tmp_path / "run").glob("*.pth"))


def test_unknown_command_and_missing_files(t2sda_inline: Run, tmp_path: Path) -> None:
    refused(t2sda_inline("trian"), "no command 'trian'; known, nearest first: train")
    refused(t2sda_inline("train", "--config-file", tmp_path / "none.yaml"), r"none\.yaml")
    refused(t2sda_inline("show-config", "--plugin", "no_such_plugin"), "no module of that name")
    refused(t2sda_inline("show-config", "--plugin", "none.py"), r"none\.py: no such file")


def test_a_run_that_skips_damaged_files_ends_and_says_how_many(
    t2sda: Run, broken: Path, tiny_config: Path
) -> None:
    for folder in ("images", "labels"):
        whole = (broken / f"broken/{folder}/a.png").read_bytes()
        (broken / f"broken/{folder}/b.png").write_bytes(whole)
    (broken / "broken/images/b.png").write_bytes(b"")
    settings = ["DATASETS.SOURCE", "broken", "DATA.NUM_WORKERS", "2", "DATA.ON_ERROR", "skip"]
    arguments = ["--config-file", tiny_config, "--plugin", "my_data.py", "--output-dir", "run"]
    result = t2sda("train", *arguments, *settings, cwd=broken)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("skipped: ") == 1
    assert re.search(r"skipped: .*images/b\.png: cannot be decoded", result.stderr)
    # Twelve steps of two samples are twelve epochs: each meets the file once, and a replacement
    # may meet it again.
    told = re.search(r"skip: (\d+) samples were replaced because of 1 files", result.stderr)
    assert told is not None
    assert int(told[1]) >= 12
