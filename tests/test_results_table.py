"""The table of results keeps every run and every score."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import results_table


def run_of(folder: Path, **scores: float | None) -> Path:
    folder.mkdir(parents=True)
    line = {f"evaluation/val/{name}": value for name, value in scores.items()}
    (folder / "metrics.jsonl").write_text(json.dumps({"iteration": 2, **line}) + "\n")
    return folder


def lines_of(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["results_table.py", *map(str, runs)])
    assert results_table.main() == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]


@pytest.mark.parametrize(
    ("folders", "titles"),
    [
        (("a/run", "b/run"), ("a/run", "b/run")),
        (("a/x/run", "b/x/run", "b/y"), ("a/x/run", "b/x/run", None)),
        (("a", "b"), ("a", "b")),
    ],
)
def test_runs_of_one_folder_name_keep_their_columns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folders: tuple[str, ...],
    titles: tuple[str | None, ...],
) -> None:
    runs = [run_of(tmp_path / name, mIoU=k / 10) for k, name in enumerate(folders)]
    head, _, scores = lines_of(runs, monkeypatch, capsys)
    assert all(title in head for title in titles if title)
    assert [cell.strip() for cell in scores.split("|")[2:-1]] == [
        f"{10 * k:.1f}" for k in range(len(runs))
    ]


def test_every_score_has_a_row_and_what_is_nowhere_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_of(
        tmp_path / "a", **{"mIoU": 0.5, "accuracy": 0.9, "mIoU16": 0.55, "IoU/road": None}
    )
    second = run_of(tmp_path / "b", **{"mIoU": 0.6, "mIoU13": 0.65, "IoU/road": 0.25})
    assert lines_of([first, second], monkeypatch, capsys)[2:] == [
        "| road | – | 25.0 |",
        "| **mIoU** | 50.0 | 60.0 |",
        "| accuracy | 90.0 | – |",
        "| mIoU16 | 55.0 | – |",
        "| mIoU13 | – | 65.0 |",
    ]


def test_one_run_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "a", mIoU=0.5)
    monkeypatch.setattr(sys, "argv", ["results_table.py", str(run), f"{run}/."])
    with pytest.raises(SystemExit, match="given twice"):
        results_table.main()
