"""`t2sda weights`, as a user calls it, and what takes its checkpoint at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from t2sda.cli.main import main
from t2sda.engine.checkpoint import load_checkpoint
from tests.weights import layouts

SMALL = ["MODEL.BACKBONE.VARIANT", "b0", "MODEL.HEAD.NAME", "DAFormerHead"]
SMALL += ["MODEL.HEAD.CHANNELS", "32", "MODEL.BACKBONE.NAME", "MiT", "MODEL.BACKBONE.WEIGHTS", ""]
SMALL += ["DATA.CROP_SIZE", "[64, 64]", "DATA.NUM_WORKERS", "0", "SOLVER.MAX_ITER", "1"]
SMALL += ["EVALUATION.DATASETS", "[streets_hazy_val]", "EVALUATION.IMAGE_SIZE", "[64, 128]"]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    content = layouts.training_checkpoint(layouts.daformer("b0", 32))
    torch.save(content, tmp_path / "daformer.pth")
    return tmp_path / "daformer.pth"


def test_an_imported_checkpoint_is_scored_and_trained_from(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new folder/student.pth"
    assert main(["weights", "import", str(published), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "DAFormer or MIC on DAFormer, the student" in said
    assert "optimizer, a dictionary with 2 tensors, no part of a network" in said
    assert "non-commercial" in said
    report = output.with_name("student.pth.tensors.txt").read_text().splitlines()
    names = [line.split(" ")[0] for line in report]
    assert set(torch.load(published, weights_only=False)["state_dict"]) < set(names)
    assert any(line.startswith("optimizer not: ") for line in report)

    run = tmp_path / "run"
    arguments = ["train", "--config-file", "quickstart.yaml", "--weights", str(output)]
    arguments += ["--output-dir", str(run), *SMALL]
    assert main([*arguments, "--eval-only"]) == 0
    assert (run / "evaluation.json").exists()
    assert main(arguments) == 0
    trained = load_checkpoint(run / "checkpoint_0000001.pth")
    assert trained.iteration == 1
    assert trained.provenance == load_checkpoint(output).provenance

    capsys.readouterr()
    assert main(["weights", "inspect", str(trained.path)]) == 0
    said = capsys.readouterr().out
    assert "a checkpoint of t2sda after 1 iterations, with student and teacher" in said
    assert "classes: cityscapes_19 (19)" in said
    assert "imported, file: daformer.pth" in said
    assert f"imported, sha256: {hashlib.sha256(published.read_bytes()).hexdigest()}" in said
    assert "non-commercial" in said
    assert main(["weights", "import", str(trained.path), "--output", str(tmp_path / "b.pth")]) == 2
    assert "is a checkpoint of t2sda already" in capsys.readouterr().err


def test_inspect_says_what_a_file_is_and_writes_nothing(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(published.parent.iterdir())
    assert main(["weights", "inspect", str(published), "--branch", "teacher"]) == 0
    said = capsys.readouterr().out
    assert "the teacher" in said
    assert "MODEL.BACKBONE.VARIANT=b0" in said
    assert "234 left out: the student; --branch student imports it" in said
    assert "234 left out: the ImageNet network" in said
    assert set(published.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "daformer.pth"], "--output OUT.pth: needed by `weights import`"),
        (["inspect", "daformer.pth", "--output", "a.pth"], "--output OUT.pth: needed by"),
        (["import", "daformer.pth", "--output", "a.onnx"], "a checkpoint's name ends in .pth"),
        (["inspect", "pip://not-installed"], "the package is not installed"),
        (["import", "nowhere.pth", "--output", "a.pth"], "nowhere.pth: no such file"),
    ],
)
def test_what_cannot_be_imported_is_one_message(
    arguments: list[str],
    message: str,
    published: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(published.parent)
    assert main(["weights", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("a.pth").exists()


def test_what_scripts_put_before_names_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = layouts.tensors(layouts.mit("b0"))
    torch.save({f"module.net.{name}": tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    assert main(["weights", "inspect", str(tmp_path / "a.pth")]) == 0
    assert "names are read without 'module.', 'net.'" in capsys.readouterr().out
