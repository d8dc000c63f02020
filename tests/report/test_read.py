"""What is read from the folder of a run, finished or not, whole or damaged."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from t2sda.errors import MissingFileError, UserError
from t2sda.evaluation.entries import Protocol
from t2sda.report.read import check_same_classes, groups_of, read_run
from tests.report.folders import entry_of, logged, make_run, scores_of

EASY = scores_of({"a.png": [[8, 2, 0], [0, 10, 0], [0, 0, 0]]})
"""IoU of quay 8 / 10, of water 10 / 12; no ship."""
HARD = scores_of({"a.png": [[1, 9, 0], [0, 10, 0], [0, 0, 0]]})


def test_a_last_line_that_is_half_written_is_left_out_and_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", metrics=[{"iteration": 20, "loss": 2.0}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 40, "loss": 1.')
    found = read_run(run, "run")
    assert found.curves == {"loss": [(20, 2.0)]}
    assert any("1 damaged line" in note for note in found.notes)


@pytest.mark.parametrize(
    "line",
    [
        '{"iteration": 1e400, "loss": 1}',
        '{"iteration": -1, "loss": 1}',
        '{"iteration": 99999999999999999999, "loss": 1}',
        f'{{"iteration": 1, "loss": {"9" * 400}}}',
        "[" * 2000,
    ],
)
def test_a_damaged_line_is_left_out_and_said(tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path / "run", metrics=[{"iteration": 20, "loss": 2.0}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + '\n{"iteration": 40, "loss": 1e308}\n')
    found = read_run(run, "run")
    assert found.curves == {"loss": [(20, 2.0)]}
    assert any("1 damaged line" in note for note in found.notes)


def test_values_that_are_no_number_leave_a_gap(tmp_path: Path) -> None:
    metrics = [{"iteration": 1, "loss": None}, {"iteration": 2, "loss": 3}]
    run = make_run(tmp_path / "run", metrics=metrics)
    assert read_run(run, "run").curves == {"loss": [(2, 3.0)]}


def test_a_run_that_still_trains_is_read_and_says_so(tmp_path: Path) -> None:
    metrics = [logged(30, quay=0.5, water=0.25), {"iteration": 40, "loss": 1.0}]
    found = read_run(make_run(tmp_path / "run", metrics=metrics), "run")
    assert found.notes == ["not finished: iteration 40 of 60"]
    assert found.scores["harbour_val"].iou == {"quay": 0.5, "water": 0.25}
    assert found.scores["harbour_val"].iteration == 30
    assert found.progress == "40 of 60"


def test_a_run_before_its_first_step_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    assert read_run(run, "run").notes == ["not finished: iteration 0 of 60"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not the folder of a run: it holds no config.yaml"),
        ("- 1", "config.yaml: not a configuration of a run"),
        ("a: [", r"config.yaml:1, column 5: not valid YAML"),
        ("a: !!bool x", "config.yaml:1: YAML cannot read 'x' as bool"),
        ("a: &x [*x]", "aliases .* are not supported"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: {b: 2024-01-01}", r"config.yaml: a.b: found datetime.date.*no setting takes"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_run(tmp_path, "x")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such folder"):
        read_run(tmp_path / "nowhere", "x")


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MissingFileError, match="file: no such folder"):
        read_run(tmp_path / "file", "x")


def test_a_class_that_is_not_there_stays_a_class_of_a_run_that_still_trains(tmp_path: Path) -> None:
    lines = [
        logged(20, quay=0.5, water=0.5, ship=0.5),
        {**logged(40, quay=0.75, water=0.25), "evaluation/harbour_val/IoU/ship": None},
    ]
    training = read_run(make_run(tmp_path / "training", metrics=lines), "training")
    iou = training.scores["harbour_val"].iou
    assert list(iou) == ["quay", "water", "ship"]
    assert math.isnan(iou["ship"])  # not what it was at iteration 20
    finished = read_run(make_run(tmp_path / "finished", entries=[entry_of(EASY)]), "finished")
    check_same_classes([finished, training])


def test_runs_that_differ_by_the_seed_alone_are_a_group(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "a_seed0", SEED=0),
        make_run(tmp_path / "b", SEED=0, SOLVER__BASE_LR=1.0),
        make_run(tmp_path / "a_seed1", SEED=1),
    ]
    groups = groups_of([read_run(folder, folder.name) for folder in folders])
    names = [(group.name, [run.seed for run in group.runs]) for group in groups]
    assert names == [("a", ["0", "1"]), ("b", ["0"])]


def test_two_groups_never_have_one_name(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / name, SEED=seed, SOLVER__BASE_LR=rate)
        for name, seed, rate in (("a1", 1, 0.1), ("a2", 2, 0.1), ("a3", 3, 0.2), ("a4", 4, 0.2))
    ]
    groups = groups_of([read_run(folder, folder.name) for folder in folders])
    assert [group.name for group in groups] == ["a1", "a3"]


@pytest.mark.parametrize("by_entry", [True, False])
def test_runs_of_other_classes_are_refused(tmp_path: Path, by_entry: bool) -> None:
    others = scores_of({"a.png": [[1, 0], [0, 1]]}, classes=("sky", "land"), dataset="other")
    pairs = [
        make_run(
            tmp_path / "one",
            entries=[entry_of(EASY)] if by_entry else [],
            metrics=[] if by_entry else [logged(60, quay=0.5, water=0.5)],
        ),
        make_run(
            tmp_path / "two",
            entries=[entry_of(others)] if by_entry else [],
            metrics=[] if by_entry else [logged(60, sky=0.5, land=0.5)],
        ),
    ]
    with pytest.raises(UserError, match=r"two: scored with 2 classes \(sky, land\), but .*one"):
        check_same_classes([read_run(folder, folder.name) for folder in pairs])


def test_scores_without_a_labelled_pixel_are_refused(tmp_path: Path) -> None:
    empty = scores_of({"a.png": [[0] * 3] * 3})
    run = make_run(tmp_path / "run", entries=[entry_of(empty)])
    with pytest.raises(UserError, match="no pixel of 'harbour_val' is labelled"):
        read_run(run, "run")


def test_the_newest_student_without_augmentation_counts(tmp_path: Path) -> None:
    mirrored = dataclasses.replace(HARD, protocol=Protocol(flip=True))
    entries = [
        entry_of(EASY),
        entry_of(HARD, iteration=30),
        entry_of(HARD, branch="teacher"),
        entry_of(mirrored),
    ]
    found = read_run(make_run(tmp_path / "run", entries=entries), "run")
    assert found.scores["harbour_val"].mean_iou == pytest.approx((8 / 10 + 10 / 12) / 2)
    assert len(found.entries) == 4


@pytest.mark.parametrize(("iteration", "quay"), [(60, 8 / 10), (90, 0.25)])
def test_logged_scores_count_where_they_are_newer(
    tmp_path: Path, iteration: int, quay: float
) -> None:
    metrics = [logged(iteration, quay=0.25, water=0.5, ship=0.0)]
    run = make_run(tmp_path / "run", entries=[entry_of(EASY)], metrics=metrics)
    assert read_run(run, "run").scores["harbour_val"].iou["quay"] == pytest.approx(quay)


def test_facts_come_from_the_record_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    session = {
        "started": "2026-01-02T03:04:05+00:00",
        "versions": {"t2sda": "0.1.0", "torch": "2.0"},
        "commit": "0123456789abcdef+",
        "machine": {"processor": "Fast", "cores": 2, "memory_mib": 2048, "gpu": "Big"},
        "processes": 2,
        "seconds": 60,
        "peak_memory_mib": 512,
    }
    sessions = [session, {**session, "seconds": 65.2, "peak_memory_mib": 1024}]
    (run / "run.json").write_text(json.dumps({"sessions": sessions}))
    assert dict(read_run(run, "run").facts) == {
        "versions": "t2sda 0.1.0, torch 2.0",
        "commit": "0123456789ab+",
        "machine": "Big, Fast, 2 cores, 2 GiB, 2 processes",
        "started": "2026-01-02 03:04",
        "resumed": "1 times",
        "time": "0:02:05",
        "memory": "1.0 GiB",
    }


@pytest.mark.parametrize(
    "session",
    [{"versions": [1]}, {"machine": [1]}, {"seconds": 1e300}, {"machine": {"memory_mib": "1"}}],
)
def test_a_record_of_something_else_is_none(tmp_path: Path, session: dict[str, object]) -> None:
    run = make_run(tmp_path / "run", metrics=[{"iteration": 1, "seconds_per_iteration": 0.5}])
    (run / "run.json").write_text(json.dumps({"sessions": [session]}))
    assert read_run(run, "run").facts == [("seconds a step", "0.50")]


def test_facts_of_a_run_without_a_record_come_from_its_log(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", metrics=[{"iteration": 1, "seconds_per_iteration": 0.5}])
    (run / "log.txt").write_text(
        "9999-99-99 99:99:99,999 damaged\n"
        "2026-01-02 03:04:05,678 INFO t2sda.training.run: t2sda 0.1.0, torch 2.0, cpu, "
        "1 process(es)\n2026-01-02 04:04:05,000 INFO t2sda.training.run: finished\n"
    )
    assert dict(read_run(run, "run").facts) == {
        "versions": "t2sda 0.1.0, torch 2.0, cpu",
        "started": "2026-01-02 03:04",
        "time by the log": "1:00:00",
        "seconds a step": "0.50",
    }
