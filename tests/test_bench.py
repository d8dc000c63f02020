"""The table of all benchmarks: what is met, what failed, what was not run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench, startup
from benchmarks.ratios import Ratio, read_ratios, save_ratios
from t2sda.cli.main import COMMANDS
from t2sda.errors import UserError

MODULES = Path(bench.__file__).parent


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of scripts, which measure nothing; that of the loader fails."""
    started: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        started.append(command)
        path = Path(command[command.index("--ratios") + 1])
        save_ratios(path, [Ratio(command[2], 2.0, "1 s, 2 s", at_least=1.5)])
        return subprocess.CompletedProcess(command, int("benchmarks.loader" in command))

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench, "conditions", lambda: "here and now")  # asks git
    return started


def test_targets_are_met_at_their_limits() -> None:
    assert Ratio("a", 2.0, at_least=2.0).met
    assert not Ratio("a", 1.9, at_least=2.0).met
    assert Ratio("a", 1.1, at_most=1.1).met
    assert not Ratio("a", 1.2, at_most=1.1).met
    assert Ratio("a", 1.2).met is None
    assert [Ratio("a", 1, at_most=1.1).target, Ratio("a", 1).target] == ["≤ 1.1", "–"]


def test_ratios_are_read_as_they_were_written(tmp_path: Path) -> None:
    ratios = [Ratio("a", 1.5, "figures", at_least=1.0), Ratio("b", 2.0, unit="s")]
    save_ratios(tmp_path / "ratios.json", ratios)
    assert read_ratios(tmp_path / "ratios.json") == ratios


def test_all_scripts_are_run_one_by_one_into_one_table(
    tmp_path: Path, runs: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.command(["--output", str(tmp_path), "--model", "m.onnx"]) == 1  # one failed
    named = [command[2].removeprefix("benchmarks.") for command in runs]
    assert named == [own.module for own in bench.SCRIPTS.values() if own.needs != "--run"]
    lines = capsys.readouterr().out.splitlines()
    assert "| benchmarks.pull_loss | 2.00 x | ≥ 1.5 | yes | 1 s, 2 s |" in lines
    assert f"| loader | | | | failed, see {tmp_path / 'loader.log'} |" in lines
    assert "| inference | | | | not run: give --run |" in lines
    assert f"{len(runs) - 1} targets met, 0 missed." in lines
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["benchmarks"]["pull loss"][0]["met"] is True
    assert (tmp_path / "bench.md").read_text().splitlines() == lines


def test_quick_look_and_models_reach_the_scripts(tmp_path: Path, runs: list[list[str]]) -> None:
    only = ["--only", "load_model", "infer on a folder"]
    arguments = ["--quick", "--output", str(tmp_path), "--model", "m.onnx", *only]
    assert bench.command(arguments) == 0
    assert [command[5:] for command in runs] == [
        ["m.onnx", "--rounds", "1"],
        ["--model", "m.onnx", "--images", "20"],
    ]
    assert (tmp_path / "bench.md").read_text().startswith("Quick look, not to compare by")


@pytest.mark.parametrize("content", [None, "[", '[{"what": "x"}]'])
def test_script_that_leaves_no_ratios_has_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        if content is not None:
            Path(command[command.index("--ratios") + 1]).write_text(content)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench, "conditions", lambda: "here and now")  # asks git
    assert bench.command(["--output", str(tmp_path), "--only", "loader"]) == 1
    line = f"| loader | | | | failed: it left no ratios in {tmp_path / 'loader.json'}, see "
    assert line in capsys.readouterr().out


def test_ratio_without_a_value_misses_its_target(tmp_path: Path) -> None:
    save_ratios(tmp_path / "ratios.json", [Ratio("a", float("nan"), at_least=1.0)])
    (found,) = read_ratios(tmp_path / "ratios.json")
    assert math.isnan(found.value)
    assert found.met is False
    assert "| a | nan x | ≥ 1 | **no** |  |" in bench.table({"b": [found]}, quick=True)


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another folder with --output"):
        bench.command(["--output", str(tmp_path / "file"), "--only", "loader"])


def test_unknown_benchmark_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no benchmark loding; known: start-up, pull loss"):
        bench.command(["--output", str(tmp_path), "--only", "loding"])


def test_every_script_that_takes_ratios_is_in_the_table() -> None:
    takers = {
        path.stem
        for path in MODULES.glob("*.py")
        if "add_ratios_argument(parser)" in path.read_text(encoding="utf-8")
    }
    assert takers - {"ratios"} == {script.module for script in bench.SCRIPTS.values()}


def test_start_up_of_every_command_is_measured() -> None:
    assert {f"t2sda {verb}" for verb in COMMANDS} <= startup.programs().keys()
    cost = startup.cost_of([sys.executable, "-S", "-c", "sum(range(10**6))"])
    assert 0 < cost.cpu <= cost.wall + 0.05  # one thread; clocks tick in hundredths
    assert cost.peak_mib > 1
    with pytest.raises(subprocess.CalledProcessError):
        startup.cost_of([sys.executable, "-S", "-c", "raise SystemExit(3)"])
