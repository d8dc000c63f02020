"""`t2sda benchmark`, as a user calls it."""

from __future__ import annotations

import io
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from t2sda.cli import benchmark_files
from t2sda.cli.benchmark import ratio, table_of
from t2sda.cli.common import short_names
from t2sda.cli.main import main
from t2sda.export import latency
from t2sda.export.end_to_end import STAGES, Breakdown, Job
from t2sda.export.latency import Candidate, Comparison, Result, Task
from tests.deployed import STATIC, shared_checkpoint, shared_export
from tests.tiny_onnx import write_tiny


@pytest.mark.slow
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


@dataclass
class Held:
    """The comparison that was to be held."""

    candidates: list[Candidate] = field(default_factory=list)

    def hold(self, candidates: list[Candidate], rounds: int) -> Comparison:
        self.candidates += candidates
        results = [Result(one, task, [0.2]) for one in candidates for task in one.tasks]
        return Comparison(results, 0.0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr("t2sda.cli.benchmark.compare_latency", held.hold)
    return held


def test_each_file_is_timed_in_those_runtimes_that_can_run_it(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    held: Held,
    capsys: pytest.CaptureFixture[str],
) -> None:
    onnx_path, xml_path = shared_export(tmp_path_factory, STATIC), tmp_path / "m.xml"
    xml_path.touch()
    paths = [str(onnx_path), str(xml_path)]
    assert main(["benchmark", *paths, "--runtimes", "onnxruntime", "openvino"]) == 0
    assert [(one.name, one.runtime) for one in held.candidates] == [
        (paths[0], "onnxruntime"),
        (paths[0], "openvino"),
        (paths[1], "openvino"),
    ]
    assert main(["benchmark", *paths, "--runtimes", "onnxruntime", "torch"]) == 2
    assert "m.xml: is a file for openvino; onnxruntime and torch cannot" in capsys.readouterr().err


def test_an_engine_is_timed_in_what_it_was_built_for(tmp_path: Path, held: Held) -> None:
    engine = tmp_path / "m.engine"
    engine.touch()
    (tmp_path / "m.engine.json").write_text('{"target": "tensorrt-rtx", "profile": null}')
    for options in ([], ["--runtimes", "tensorrt", "tensorrt-rtx"]):
        assert main(["benchmark", str(engine), *options]) == 0
    assert [one.runtime for one in held.candidates] == ["tensorrt-rtx"] * 2


def test_as_many_threads_as_cores_that_may_be_used(
    tmp_path_factory: pytest.TempPathFactory, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert main(["benchmark", str(shared_export(tmp_path_factory, STATIC))]) == 0
    assert [one.threads for one in held.candidates] == [3]


def test_files_of_one_name_are_told_apart(
    tmp_path: Path,
    held: Held,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["runs/a/student.xml", "runs/b/student.xml"]
    for path in paths:
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    assert main(["benchmark", *paths, "--json", "times.json"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert [row.split()[0] for row in rows] == ["a/student.xml", "b/student.xml"]
    results = json.loads(Path("times.json").read_text())["results"]
    assert [result["model"] for result in results] == paths


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a/m.onnx", "runs/b/m.xml"], ["m.onnx", "m.xml"]),
        (["a/x/m.onnx", "b/x/m.onnx", "b/y/n.onnx"], ["a/x/m.onnx", "b/x/m.onnx", "n.onnx"]),
        (["m.onnx", "runs/m.onnx", "/m.onnx"], ["m.onnx", "runs/m.onnx", "/m.onnx"]),
        (["runs/m.onnx", "./runs/m.onnx"], ["m.onnx", "m.onnx"]),
        ([".", "SegFormer-B0"], [".", "SegFormer-B0"]),
    ],
)
def test_a_name_is_as_long_as_it_must_be(paths: list[str], names: list[str]) -> None:
    assert short_names(paths) == names


def test_where_times_cannot_be_written_nothing_is_timed(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    held: Held,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = str(shared_export(tmp_path_factory, STATIC))
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    for written, message in (
        (folder, "folder: is a folder; --json names the file to write"),
        (file / "times.json", "file (File exists); choose another folder with --json"),
    ):
        assert main(["benchmark", path, "--json", str(written)]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to everything
    assert main(["benchmark", path, "--json", str(file)]) == 2
    assert "file; choose another file with --json" in capsys.readouterr().err
    assert not held.candidates


def test_bad_input(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_export(tmp_path_factory, STATIC)
    (tmp_path / "text.onnx").write_text("hello")
    for words, message in (
        ([str(tmp_path / "nowhere")], "nowhere: no such file or folder"),
        ([str(path), "--runtimes", "torch"], "torch cannot run it"),
        ([str(path), "--runtimes", "openvino", "--runtime", "openvino"], "give one of them"),
        ([str(tmp_path / "text.onnx")], "text.onnx: not an ONNX file"),
        ([str(path), "--batches", "2", "--rounds", "1"], "this file takes at most 1 at once"),
    ):
        assert main(["benchmark", *words]) == 2
        assert message in capsys.readouterr().err


def test_ratios_are_to_the_first_on_the_same_task() -> None:
    tasks = (Task((64, 96), 1), Task((64, 96), 4))
    results = [
        Result(Candidate(name, lambda: lambda images: images, "torch", 1, tasks), task, [seconds])
        for name, all_seconds in (("slow", (0.4, 0.8)), ("fast", (0.1, 0.4)))
        for task, seconds in zip(tasks, all_seconds, strict=True)
    ]
    held = Comparison(results, 0.0)
    assert [ratio(result, held) for result in results] == pytest.approx([1, 1, 4, 2])


def test_what_all_rows_share_is_told_in_the_title() -> None:
    def text_of(*tasks: Task) -> str:
        candidate = Candidate("segformer_b0.onnx", lambda: lambda images: images, "torch", 2, tasks)
        console = Console(width=100, file=io.StringIO(), record=True)
        console.print(table_of(Comparison([Result(candidate, task, [0.2]) for task in tasks], 0.0)))
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
    monkeypatch.setattr(latency, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(latency, "_process_seconds", lambda pid: next(own))
    load = latency._ForeignLoad([])
    load._began = time.perf_counter() - 4.0
    assert load.cores() == pytest.approx(1.5, rel=0.01)


def test_percentiles_and_pace() -> None:
    task = Task((64, 96), 2)
    candidate = Candidate("name", lambda: lambda images: images, "torch", 1, (task,))
    result = Result(candidate, task, seconds=[0.1, 0.2, 0.3])
    assert result.percentile(50) == pytest.approx(200)
    assert result.images_per_second == pytest.approx(10)
    assert Comparison([result], 0.0).results == [result]


@pytest.mark.slow  # processes that import everything
def test_end_to_end_tells_stages_of_files(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, written = shared_export(tmp_path_factory, STATIC), tmp_path / "times.json"
    checkpoint = shared_checkpoint(tmp_path_factory)
    options = ["--end-to-end", "--sizes", "64x96", "--rounds", "1", "--json", str(written)]
    assert main(["benchmark", str(path), str(checkpoint), *options, "--threads", "1"]) == 0
    table = capsys.readouterr().out
    for word in ("decode", "copy", "network", "write", "overlapped", "cores busy"):
        assert word in table
    results = json.loads(written.read_text())["results"]
    assert [result["runtime"] for result in results] == ["onnxruntime", "torch"]
    for result in results:
        parts = [sum(own) for own in result["seconds"].values()]
        assert all(part > 0 for part in parts)


def test_options_that_say_nothing_end_to_end_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tiny(tmp_path / "tiny.onnx")
    (tmp_path / "empty").mkdir()
    for options, words in (
        (["--images", str(tmp_path)], "with --end-to-end alone"),
        (["--end-to-end", "--batches", "4"], "one image at a time"),
        (["--end-to-end", "--images", str(tmp_path / "empty")], "no image in this folder"),
        (["--end-to-end", "--images", str(tmp_path / "none")], "none: no such folder"),
        (["--end-to-end", "--images", str(path)], "tiny.onnx: no such folder"),
        (["--end-to-end", "--images", str(tmp_path), "--sizes", "8x8"], "sizes of their own"),
    ):
        assert main(["benchmark", str(path), *options]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("size", ["00x5", "8x0", "8", "99999999x99999999", "9" * 5000 + "x1"])
def test_a_size_that_no_image_has_is_refused(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", str(tmp_path / "any.onnx"), "--sizes", size])
    assert "argument --sizes: " in capsys.readouterr().err


def test_a_size_that_is_given_twice_is_timed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    def break_down(job: Job) -> Breakdown:
        jobs.append(job)
        return Breakdown(job, (8, 8), {stage: [0.1] for stage in STAGES}, [0.1])

    monkeypatch.setattr(benchmark_files, "break_down", break_down)
    path = write_tiny(tmp_path / "tiny.onnx")
    assert main(["benchmark", str(path), "--end-to-end", "--sizes", "8x8", "9x9", "8x8"]) == 0
    assert [job.files[0].parent.name for job in jobs] == ["8x8", "9x9"]
