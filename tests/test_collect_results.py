"""What is kept of a finished run: scores, counts of every image, what it was trained by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import collect_results, stored_results
from benchmarks.stored_results import config_hash, differences_to_now, read_result, read_results
from t2sda.config import dump_config
from t2sda.engine.checkpoint import checkpoint_path
from t2sda.errors import UserError
from t2sda.evaluation.bootstrap import block_counts, blocks_of
from t2sda.evaluation.entries import (
    FILE_NAME,
    ClassScores,
    Entry,
    ImageCounts,
    Protocol,
    Scores,
    write_entries,
)
from t2sda.training.sweep import SweepRun, read_sweep

SWEEP = """
output_dir: {folder}
set: {{SOLVER.MAX_ITER: 2}}
seeds: [3]
runs:
  first: {{config: quickstart_source_only.yaml, set: {{SOLVER.BASE_LR: {rate}}}}}
"""
TWO = (
    SWEEP
    + """\
  second: {{config: quickstart.yaml, weights: first}}
"""
)
GROUPS = {"flat": (0, 2), "car": (1,)}
IMAGES = (
    ImageCounts("a/0", true=(5, 3, 2), predicted=(4, 4, 2), right=(3, 2, 1), group_right=(6, 2)),
    ImageCounts("b/0", true=(0, 6, 4), predicted=(6, 0, 4), right=(0, 0, 4), group_right=(4, 0)),
)
SCORES = Scores(
    dataset="val",
    num_images=2,
    protocol=Protocol(),
    classes=("road", "car", "sidewalk"),
    confusion=((3, 2, 0), (6, 2, 1), (1, 0, 5)),
    iou={"road": 0.25, "car": 2 / 11, "sidewalk": 0.5},
    class_accuracy={"road": 0.6, "car": 2 / 9, "sidewalk": 2 / 3},
    accuracy=0.5,
    mean_iou=0.3,
    groups=ClassScores({"flat": 10 / 17, "car": 2 / 11}, 0.4),
    group_classes=GROUPS,
    images=IMAGES,
)
SESSION = {
    "started": "2026-01-01T00:00:00+00:00",
    "first_iteration": 0,
    "versions": {"torch": "2"},
    "commit": "abc",
    "machine": {"processor": "P", "memory_mib": 1000},
    "processes": 1,
}
ENDED = {"ended": "2026-01-01T01:00:00+00:00", "seconds": 60.5, "peak_memory_mib": 700}


@pytest.fixture(autouse=True)
def _own_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (collect_results, stored_results):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(collect_results, "FOLDER", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/streets.yaml").write_text("rows: {first: {title: First}}")


def sweep_file(folder: Path, rate: float = 0.001, text: str = SWEEP) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text.format(folder=folder / "runs", rate=rate))
    return path


def finished(run: SweepRun, *, iteration: int = 2, session: dict = SESSION) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(dump_config(run.cfg))
    sessions = [session, session | ENDED]
    (run.folder / "run.json").write_text(json.dumps({"sessions": sessions}))
    checkpoint_path(run.folder, 2).touch()
    entry = Entry("c.pth", "sha256:1", iteration, "student", "torch", "2026", SCORES)
    write_entries(run.folder / FILE_NAME, [entry])


def collect(path: Path, *more: str) -> int:
    return collect_results.command([str(path), "--benchmark", "streets", *more])


def test_file_holds_scores_costs_and_the_counts_of_the_reported_classes(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    assert collect(path) == 0
    result = read_result(tmp_path / "results/streets/first.seed_3.json")
    assert (result.name, result.seed, result.sweep) == ("first", 3, "sweep.yaml")
    assert result.config == "quickstart_source_only.yaml"
    assert (result.seconds, result.killed, result.commits) == (60.5, 1, ["abc"])
    assert (result.peak_memory_mib, result.peak_gpu_memory_mib) == (700, None)
    assert result.settings["SOLVER.BASE_LR"] == 0.001
    assert result.settings["SEED"] == 3
    assert "OUTPUT_DIR" not in result.settings
    kept = result.scores["val"]
    assert (kept.mean_iou, kept.iou, kept.accuracy) == (0.4, dict(SCORES.groups.iou), 0.5)
    # road and sidewalk of an image are one class: 5 + 2, 4 + 2
    assert kept.images == {
        "a/0": ((7, 3), (6, 4), (6, 2)),
        "b/0": ((4, 6), (10, 0), (4, 0)),
    }


def test_kept_counts_are_those_of_the_bootstrap(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    collect(path)
    kept = read_result(tmp_path / "results/streets/first.seed_3.json").scores["val"]
    blocks = blocks_of(["a/0", "b/0"], "(.)/")
    assert (block_counts(kept.as_scores("val"), blocks) == block_counts(SCORES, blocks)).all()


def test_runs_that_lie_elsewhere_are_found_and_unfinished_ones_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep_file(tmp_path)
    finished(collect_results.moved(read_sweep(path).runs[0], tmp_path / "elsewhere"))
    assert collect(path) == 0
    assert "first/seed_3: waiting, left out" in capsys.readouterr().out
    assert collect(path, "--runs", str(tmp_path / "elsewhere")) == 0
    assert "results/streets/first.seed_3.json" in capsys.readouterr().out


def test_run_without_a_row_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    (tmp_path / "results/streets.yaml").write_text("rows: {second: {title: Second}}")
    assert collect(path) == 0
    assert "first/seed_3: in no row, left out" in capsys.readouterr().out
    assert not (tmp_path / "results/streets").exists()


def test_benchmark_without_a_file_of_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results/streets.yaml").unlink()
    with pytest.raises(Exception, match=r"streets.yaml: no such file; it lists the rows"):
        collect(sweep_file(tmp_path))


def test_scores_of_another_step_do_not_count(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0], iteration=1)
    with pytest.raises(Exception, match="no scores of step 2 on any dataset; add them"):
        collect(path)


def test_dataset_that_was_not_scored_is_named(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    with pytest.raises(Exception, match="no scores of step 2 on test; add them"):
        collect(path, "--data", "val", "test")


def test_run_that_was_done_with_other_settings_is_refused(tmp_path: Path) -> None:
    finished(read_sweep(sweep_file(tmp_path)).runs[0])
    with pytest.raises(Exception, match="other settings: SOLVER.BASE_LR was 0.001, is 0.002"):
        collect(sweep_file(tmp_path, rate=0.002))


def test_what_changed_since_a_result_was_kept_is_named(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    collect(path)
    result = read_result(tmp_path / "results/streets/first.seed_3.json")
    assert differences_to_now(result, read_sweep(path)) == []
    other = differences_to_now(result, read_sweep(sweep_file(tmp_path, rate=0.002)))
    assert other[0] == "SOLVER.BASE_LR: was 0.001, is 0.002"
    assert "BASE_LR=0.002" in other[1]
    path.write_text(path.read_text().replace("first", "second"))
    assert differences_to_now(result, read_sweep(path)) == ["sweep.yaml has no run first of seed 3"]


def test_what_a_run_started_from_is_kept_and_may_not_change(tmp_path: Path) -> None:
    (tmp_path / "results/streets.yaml").write_text("rows: {second: {title: Second}}")
    path = sweep_file(tmp_path, text=TWO)
    first, second = read_sweep(path).runs
    finished(first)
    finished(second)
    collect(path)
    result = read_result(tmp_path / "results/streets/second.seed_3.json")
    (own,) = result.needs.values()
    assert own["SOLVER.BASE_LR"] == 0.001
    assert "SOLVER.MAX_ITER" not in own  # as in `settings`
    assert differences_to_now(result, read_sweep(path)) == []
    changed = read_sweep(sweep_file(tmp_path, rate=0.002, text=TWO))
    assert differences_to_now(result, changed) == [
        "first/seed_3, from which it starts: SOLVER.BASE_LR: was 0.001, is 0.002"
    ]
    path.write_text(path.read_text().replace(", weights: first", ""))
    assert differences_to_now(result, read_sweep(path))[0] == (
        "it does not start from first/seed_3 any more"
    )
    path = sweep_file(tmp_path, rate=0.002, text=TWO)
    with pytest.raises(Exception, match=r"first/seed_3: done with other settings"):
        collect(path)


def test_run_that_started_before_what_it_needs_was_trained_anew_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results/streets.yaml").write_text("rows: {second: {title: Second}}")
    path = sweep_file(tmp_path, text=TWO)
    first, second = read_sweep(path).runs
    finished(first, session=SESSION | {"started": "2026-01-02T00:00:00+00:00"})
    finished(second)
    with pytest.raises(Exception, match=r"second/seed_3: done before .*first/seed_3 was"):
        collect(path)


@pytest.mark.parametrize("lost", ["machine", "versions", "started"])
def test_record_that_lacks_a_part_is_damaged(tmp_path: Path, lost: str) -> None:
    path = sweep_file(tmp_path)
    session = {key: value for key, value in SESSION.items() if key != lost}
    finished(read_sweep(path).runs[0], session=session)
    with pytest.raises(Exception, match=r"run\.json is missing or damaged"):
        collect(path)


def test_copy_of_a_result_is_no_other_seed(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    collect(path)
    folder = tmp_path / "results/streets"
    (folder / "first.seed_4.json").write_bytes((folder / "first.seed_3.json").read_bytes())
    with pytest.raises(UserError, match=r"first.seed_4.json: holds what belongs into first.seed_3"):
        read_results(folder)


def test_kept_scores_follow_from_the_counts_of_their_images() -> None:
    files = sorted(Path(stored_results.__file__).with_name("results").glob("*/*.seed_*.json"))
    assert files
    for path in files:
        for name, kept in json.loads(path.read_text())["scores"].items():
            shares = []
            for index, share in enumerate(kept["iou"].values()):
                true, predicted, right = (
                    sum(counts[part][index] for counts in kept["images"].values())
                    for part in range(3)
                )
                union = true + predicted - right
                expected = right / union if union else None
                assert share == (None if expected is None else pytest.approx(expected)), (
                    path,
                    name,
                )
                shares += [] if expected is None else [expected]
            assert kept["mean_iou"] == pytest.approx(sum(shares) / len(shares)), (path, name)


def test_hash_is_that_of_the_settings_in_any_order() -> None:
    assert config_hash({"A": 1, "B": 2}) == config_hash({"B": 2, "A": 1})
    assert config_hash({"A": 1, "B": 2}) != config_hash({"A": 1, "B": 3})


def test_sweep_file_outside_of_the_repository_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    monkeypatch.setattr(collect_results, "ROOT", tmp_path / "repository")
    with pytest.raises(Exception, match="not in this repository"):
        collect(path)


def test_other_files_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "x.seed_0.json"
    path.write_text('{"format": "other"}')
    with pytest.raises(Exception, match="not a kept result"):
        read_result(path)


def test_result_that_is_too_large_to_commit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sweep_file(tmp_path)
    finished(read_sweep(path).runs[0])
    monkeypatch.setattr(stored_results, "MAX_BYTES", 1000)
    with pytest.raises(Exception, match="more than 1000; choose fewer datasets"):
        collect(path)
