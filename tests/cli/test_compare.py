"""`t2sda compare`: changed settings, scores with differences, and what is no run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from t2sda.cli.main import main
from t2sda.evaluation.bootstrap import mean_iou_difference
from t2sda.evaluation.entries import Entry, Scores, write_entries
from tests.evaluation.test_bootstrap import FIRST, SECOND, scores_of


def entry(scores: Scores, iteration: int = 4) -> Entry:
    digest = f"sha256:{iteration}"
    return Entry("a.pth", digest, iteration, "student", "torch", "2026-01-01T00:00:00", scores)


def run_of(folder: Path, settings: str, *entries: Entry) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(settings)
    write_entries(folder / "evaluation.json", entries)
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs; the first was scored on two sets, and earlier as well."""
    monkeypatch.chdir(tmp_path)
    first, second = (
        dataclasses.replace(own, mean_iou=mean, iou={"x": mean, "y": 0.25, "z": float("nan")})
        for own, mean in ((scores_of(FIRST), 0.5), (scores_of(SECOND), 0.625))
    )
    other = dataclasses.replace(first, dataset="night")
    older = dataclasses.replace(first, mean_iou=0.125)
    settings = "SEED: 0\nOUTPUT_DIR: {}\nSOLVER: {{BASE_LR: {}, BATCH_SIZE: 2}}\n"
    run_of(
        tmp_path / "a",
        settings.format("runs/a", "1.0e-4"),
        *(entry(first), entry(older, 2), entry(other)),
    )
    run_of(tmp_path / "b", settings.format("runs/b", "6.0e-5"), entry(second))
    return tmp_path


def test_settings_scores_and_the_interval_of_the_difference_are_shown(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "a", "b", "--blocks", "([^/]+)/"]) == 0
    shown = capsys.readouterr().out
    rows = {cells[0]: cells[1:] for line in shown.splitlines() if (cells := cells_of(line))}
    assert rows["SOLVER.BASE_LR"] == ["0.0001", "6e-05"]
    assert not {"SOLVER.BATCH_SIZE", "OUTPUT_DIR"} & rows.keys()
    assert rows["x"] == ["50.0", "62.5", "+12.5"]
    assert rows["z"] == ["not there", "not there", ""]
    assert rows["mIoU"] == ["50.0", "62.5", "+12.5"]
    found = mean_iou_difference(scores_of(SECOND), scores_of(FIRST), "([^/]+)/")
    assert (
        f"b - a: mIoU {100 * found.value:+.1f} (95 % of resamples of 3 blocks: "
        f"{100 * found.low:+.1f} to {100 * found.high:+.1f})"
    ) in shown
    assert "a alone: night, as they are, whole, student" in shown


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("│")[1:-1]] if line.startswith("│") else []


def test_runs_of_the_same_settings_say_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "b/config.yaml").write_bytes((runs / "a/config.yaml").read_bytes())
    assert main(["compare", "a", "b"]) == 0
    assert "all settings are the same" in capsys.readouterr().out


def test_what_cannot_be_compared_is_one_message(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def message(*arguments: str) -> str:
        assert main(["compare", *arguments]) == 2
        return capsys.readouterr().err

    assert "give two different runs or more" in message("a")
    for same in ("a", "a/", "b/../a"):
        assert f"{same}: given twice" in message(same, "a")
    assert "c: no such folder" in message("a", "c")
    (runs / "c").mkdir()
    assert "c: not the folder of a run: it holds no config.yaml" in message("a", "c")
    (runs / "c/config.yaml").write_text("SEED: 1\n")
    said = message("a", "c")
    assert "the run has not ended yet, or was not scored" in said
    assert "t2sda evaluate c --data NAME" in said
    (runs / "c/evaluation.json").write_bytes((runs / "a/evaluation.json").read_bytes()[:300])
    assert "c/evaluation.json: damaged: no JSON" in message("a", "c")
    night = dataclasses.replace(scores_of(FIRST), dataset="dusk")
    write_entries(runs / "c/evaluation.json", [entry(night)])
    assert "have no score of one dataset, size and branch in common" in message("a", "c")
    (runs / "c/config.yaml").write_text("SEED: [1\n")
    assert "c/config.yaml:2, column 1: not valid YAML" in message("a", "c")
    (runs / "c/config.yaml").write_text("SEED: !!int ''\n")
    assert "c/config.yaml:1: YAML cannot read '' as int" in message("a", "c")
    (runs / "c/config.yaml").write_text("- 1\n")
    assert "c/config.yaml: not a configuration of a run" in message("a", "c")
