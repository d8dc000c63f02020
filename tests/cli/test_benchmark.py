"""`t2sda benchmark`, as a user calls it."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from t2sda.cli.benchmark import ratio, table_of
from t2sda.cli.main import main
from t2sda.export import contest
from t2sda.export.contest import Contender, Contest, Result, Task
from tests.deployed import STATIC, shared_export


def test_models_and_runtimes_side_by_side(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_export(tmp_path_factory, STATIC)
    written = tmp_path / "times.json"
    options = ["--sizes", "64x96", "--rounds", "2", "--thread-counts", "1", "--json", str(written)]
    assert main(["benchmark", str(path), "--runtimes", "onnxruntime", "openvino", *options]) == 0
    table = capsys.readouterr().out
    for word in ("p50", "p99", "images/s", "ratio", "MiB", "openvino", "cores busy"):
        assert word in table
    results = json.loads(written.read_text())["results"]
    assert [result["runtime"] for result in results] == ["onnxruntime", "openvino"]
    assert results[0]["ratio"] == 1
    for result in results:
        assert len(result["seconds"]) == 2 * 3
        assert result["milliseconds"]["50"] <= result["milliseconds"]["99"]
        assert result["peak_memory_mib"] > 50
        assert result["load_seconds"] > 0


def test_bad_input(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_export(tmp_path_factory, STATIC)
    (tmp_path / "text.onnx").write_text("hello")
    for words, message in (
        ([str(tmp_path / "nowhere")], "nowhere: no such file or folder"),
        ([str(path), "--runtimes", "torch"], "torch cannot run it"),
        ([str(path), "--runtimes", "openvino", "--runtime", "openvino"], "give one of them"),
        ([str(tmp_path / "text.onnx")], "text.onnx: ONNX Runtime cannot load this file"),
        ([str(path), "--batches", "2", "--rounds", "1"], "this file takes at most 1 at once"),
    ):
        assert main(["benchmark", *words]) == 2
        assert message in capsys.readouterr().err


def test_ratios_are_to_the_first_on_the_same_task() -> None:
    tasks = (Task((64, 96), 1), Task((64, 96), 4))
    results = [
        Result(Contender(name, lambda: lambda images: images, "torch", 1, tasks), task, [seconds])
        for name, all_seconds in (("slow", (0.4, 0.8)), ("fast", (0.1, 0.4)))
        for task, seconds in zip(tasks, all_seconds, strict=True)
    ]
    held = Contest(results, 0.0)
    assert [ratio(result, held) for result in results] == pytest.approx([1, 1, 4, 2])


def test_what_all_rows_share_is_told_in_the_title() -> None:
    def text_of(*tasks: Task) -> str:
        contender = Contender("segformer_b0.onnx", lambda: lambda images: images, "torch", 2, tasks)
        console = Console(width=100, file=io.StringIO(), record=True)
        console.print(table_of(Contest([Result(contender, task, [0.2]) for task in tasks], 0.0)))
        return console.export_text()

    title, head, row = text_of(Task((64, 96), 1)).splitlines()
    assert title.strip() == "latency in ms, 64x96, batch 1, 2 threads"
    assert head.split()[:3] == ["model", "runtime", "p50"]
    assert row.split()[:3] == ["segformer_b0.onnx", "torch", "200.0"]
    title, head, *rows = text_of(Task((64, 96), 1), Task((64, 96), 4)).splitlines()
    assert title.strip() == "latency in ms, 64x96, 2 threads"
    assert head.split()[:3] == ["model", "runtime", "batch"]
    assert [row.split()[2] for row in rows] == ["1", "4"]


def test_load_of_others_is_what_is_busy_less_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own = iter([100.0, 109.0]), iter([10.0, 13.0])
    monkeypatch.setattr(contest, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(contest, "_process_seconds", lambda pid: next(own))
    load = contest._ForeignLoad([])
    load._began = time.perf_counter() - 4.0
    assert load.cores() == pytest.approx(1.5, rel=0.01)


def test_percentiles_and_pace() -> None:
    task = Task((64, 96), 2)
    contender = Contender("name", lambda: lambda images: images, "torch", 1, (task,))
    result = Result(contender, task, seconds=[0.1, 0.2, 0.3])
    assert result.percentile(50) == pytest.approx(200)
    assert result.pictures_per_second == pytest.approx(10)
    assert Contest([result], 0.0).results == [result]
