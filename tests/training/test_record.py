"""run.json: an entry for each start, completed at its end, whatever was there before."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from pathlib import Path

import pytest
import torch

from t2sda.errors import UserError
from t2sda.training import record
from t2sda.training.record import RunRecord, commit, sessions_of

CPU = torch.device("cpu")


def test_every_start_has_an_entry_and_a_killed_one_no_end(tmp_path: Path) -> None:
    RunRecord(tmp_path, CPU).before_train(0)  # and then the power fails
    resumed = RunRecord(tmp_path, CPU)
    resumed.before_train(5)
    resumed.after_train(9)
    first, second = sessions_of(tmp_path / "run.json")
    assert "ended" not in first
    assert (second["first_iteration"], second["next_iteration"]) == (5, 9)
    assert second["versions"]["torch"] == torch.__version__
    assert second["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert second["machine"]["gpu"] is None
    assert second["peak_gpu_memory_mib"] is None
    assert second["peak_memory_mib"] > 50
    assert os.uname().nodename not in json.dumps(second["machine"])


def test_a_run_that_begins_anew_forgets_the_old_entries(tmp_path: Path) -> None:
    for _ in range(2):
        RunRecord(tmp_path, CPU).before_train(0)
    assert len(sessions_of(tmp_path / "run.json")) == 1


DAMAGED = (("versions", "5"), ("machine", "[1]"), ("seconds", "1e300"), ("seconds", '"9"'))
DAMAGED += (("seconds", "NaN"), ("machine", '{"memory_mib": "x"}'), ("peak_memory_mib", "[1]"))


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"sessions": 3}', '{"sessions": [3]}', None),
        *(f'{{"sessions": [{{"{name}": {value}}}]}}' for name, value in DAMAGED),
    ],
)
def test_a_damaged_record_holds_nothing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert sessions_of(tmp_path / "run.json") == []


def test_a_record_that_cannot_be_completed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunRecord(tmp_path, CPU)
    run.before_train(0)
    before = json.loads((tmp_path / "run.json").read_text())

    def refuse(path: Path, content: str) -> None:
        raise UserError(f"{path}: cannot be written (no space left)")

    monkeypatch.setattr(record, "atomic_write", refuse)
    with caplog.at_level(logging.WARNING, "t2sda"):
        run.after_train(3)
    assert "no space left" in caplog.text
    assert json.loads((tmp_path / "run.json").read_text()) == before


def test_the_commit_is_that_of_the_source_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "t2sda/training/record.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(record, "__file__", str(module))
    assert commit() is None, "no repository, as where a wheel is installed"
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for arguments in (("init",), ("add", "."), (*identity, "commit", "-m", "first")):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)
    found = commit()
    assert found is not None
    assert len(found) == 40
    module.write_text("# changed\n")
    assert commit() == f"{found}+"
