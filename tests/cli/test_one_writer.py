"""Two runs never write to one folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from t2sda.cli import infer, train
from t2sda.cli.common import run_command
from t2sda.files import only_writer

TRAIN = ("--config-file", "quickstart_source_only.yaml", "--output-dir")


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """A folder that another run holds."""
    with only_writer(tmp_path / "busy", "--output"):
        yield tmp_path / "busy"


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_training_is_refused_before_it_reads_a_checkpoint(
    busy: Path, capsys: pytest.CaptureFixture[str], resume: list[str]
) -> None:
    torch.save({}, busy / "checkpoint_0000001.pth")
    assert run_command(train.command, [*TRAIN, str(busy), *resume]) == 2
    assert "another run is writing there" in capsys.readouterr().err


def test_segmenting_is_refused_before_it_touches_a_result(
    busy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (busy / "images.jsonl").write_text("{}\n")
    monkeypatch.setattr(infer, "load_model", lambda *_, **__: None)
    monkeypatch.setattr(infer, "_segmenter", lambda *_: None)
    monkeypatch.setattr(infer, "_shared_cores", lambda *_: (1, 1, 1))
    monkeypatch.setattr(infer, "load_for_models", lambda *_: None)
    arguments = ["--model", "m.onnx", "--input", str(tmp_path / "a.png"), "--output", str(busy)]
    assert run_command(infer.command, arguments) == 2
    assert "another run is writing there" in capsys.readouterr().err
    assert (busy / "images.jsonl").read_text() == "{}\n"
