"""Sweeps: what a file stands for, in which order runs start, what is left out and tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from t2sda.cli.sweep import command
from t2sda.config import ConfigError, dump_config
from t2sda.engine.checkpoint import checkpoint_path
from t2sda.errors import MissingFileError, UserError
from t2sda.files import is_written_to, only_writer
from t2sda.training import sweep as module
from t2sda.training import sweep_execution
from t2sda.training.sweep import SweepRun, read_plugins, read_sweep
from t2sda.training.sweep_execution import execute

SMALL = (
    "set: {SOLVER.MAX_ITER: 2, DATA.CROP_SIZE: [64, 64], DATA.NUM_WORKERS: 0, "
    "EVALUATION.PERIOD: 0, LOGGING.TENSORBOARD: false}\n"
)
THREE = (
    "runs:\n"
    "  source: {config: quickstart_source_only.yaml}\n"
    "  adapted: {config: quickstart.yaml, weights: source}\n"
    "  other: {config: quickstart_source_only.yaml, seeds: [7], "
    "grid: {SOLVER.BASE_LR: [0.1, 0.2]}}\n"
)


def sweep_file(folder: Path, text: str = THREE, seeds: str = "seeds: [0, 1]\n") -> Path:
    path = folder / "sweep.yaml"
    path.write_text(f"output_dir: {folder / 'out'}\n{seeds}{SMALL}{text}")
    return path


class FakeJob:
    """Done when asked for the second time; the run is then finished, or has failed."""

    def __init__(self, run: SweepRun, fails: bool) -> None:
        self.run, self.fails, self.asked, self.cancelled = run, fails, 0, False
        self.log_path = Path("jobs/1/1_0_log.err")

    def done(self) -> bool:
        self.asked += 1
        if self.asked < 2:
            return False
        self.run.folder.mkdir(parents=True, exist_ok=True)
        if self.fails:
            line = "2026-01-01 00:00:00,000 ERROR t2sda: UserError: no such thing\n"
            (self.run.folder / "log.txt").write_text(line)
        else:
            checkpoint_path(self.run.folder, self.run.cfg.SOLVER.MAX_ITER).touch()
        return True

    def cancel(self) -> None:
        self.cancelled = True


class Recorder:
    """Starts fake jobs; notes the order, and how many ran at a time."""

    def __init__(self, fails: str = "nothing") -> None:
        self.fails = fails
        self.started: list[str] = []
        self.jobs: list[FakeJob] = []
        self.most = 0

    def __call__(self, run: SweepRun) -> FakeJob:
        self.started.append(run.name)
        self.jobs.append(FakeJob(run, run.name.startswith(self.fails)))
        self.most = max(self.most, sum(job.asked < 2 for job in self.jobs))
        return self.jobs[-1]


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_execution, "SECONDS_BETWEEN_LOOKS", 0.0)


def test_configurations_times_grid_times_seeds(tmp_path: Path) -> None:
    runs = read_sweep(sweep_file(tmp_path)).runs
    assert [run.name for run in runs] == [
        *("source/seed_0", "source/seed_1", "adapted/seed_0", "adapted/seed_1"),
        *("other,BASE_LR=0.1/seed_7", "other,BASE_LR=0.2/seed_7"),
    ]
    assert [run.cfg.SEED for run in runs] == [0, 1, 0, 1, 7, 7]
    assert [run.cfg.SOLVER.BASE_LR for run in runs[4:]] == [0.1, 0.2]
    assert all(run.cfg.SOLVER.MAX_ITER == 2 for run in runs)
    assert runs[3].needs == ("source/seed_1",)
    weights = runs[3].arguments.index("--weights")
    assert runs[3].arguments[weights + 1] == str(runs[1].folder)


def test_without_seeds_a_configuration_keeps_its_own(tmp_path: Path) -> None:
    text = "runs: {a: {config: quickstart_source_only.yaml, set: {SEED: 5}}}\n"
    (run,) = read_sweep(sweep_file(tmp_path, text, seeds="")).runs
    assert (run.name, run.cfg.SEED) == ("a", 5)


@pytest.mark.parametrize("jobs", [1, 2])
def test_runs_start_in_order_and_behind_what_they_need(tmp_path: Path, jobs: int) -> None:
    sweep, recorder = read_sweep(sweep_file(tmp_path)), Recorder()
    assert execute(sweep, recorder, jobs) == []
    assert sorted(recorder.started) == sorted(run.name for run in sweep.runs)
    for run in sweep.runs:
        for needed in run.needs:
            assert recorder.started.index(needed) < recorder.started.index(run.name)
    assert recorder.most == jobs
    assert {run.state for run in sweep.runs} == {"done"}
    again = Recorder()
    assert execute(sweep, again, jobs) == []
    assert again.started == []


def test_a_failed_run_takes_those_that_need_it(tmp_path: Path) -> None:
    sweep, recorder = read_sweep(sweep_file(tmp_path)), Recorder(fails="source/seed_0")
    failed = execute(sweep, recorder, 2)
    assert {run.name for run in failed} == {"source/seed_0", "adapted/seed_0"}
    assert "adapted/seed_0" not in recorder.started
    assert "adapted/seed_1" in recorder.started
    states = {run.name: run.state for run in sweep.runs}
    assert (states["source/seed_0"], states["adapted/seed_0"]) == ("failed", "waiting")
    assert sweep.runs[0].error == "UserError: no such thing"
    again = Recorder()
    assert execute(sweep, again, 2) == []
    assert sorted(again.started) == ["adapted/seed_0", "source/seed_0"]


def test_what_stops_the_sweep_cancels_its_runs(tmp_path: Path) -> None:
    sweep, recorder = read_sweep(sweep_file(tmp_path)), Recorder()

    def interrupted(run: SweepRun) -> FakeJob:
        if recorder.jobs:
            raise KeyboardInterrupt
        return recorder(run)

    with pytest.raises(KeyboardInterrupt):
        execute(sweep, interrupted, 2)
    assert [job.cancelled for job in recorder.jobs] == [True]


def test_a_run_that_a_killed_sweep_left_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, recorder = read_sweep(sweep_file(tmp_path)), Recorder()
    first, looks = sweep.runs[0], iter(range(100))

    def left_running(folder: Path) -> bool:
        if folder != first.folder or next(looks) > 4:
            return False
        first.folder.mkdir(parents=True, exist_ok=True)
        checkpoint_path(first.folder, 2).touch()  # as it will have when it has ended
        return True

    monkeypatch.setattr(module, "is_written_to", left_running)
    assert execute(sweep, recorder, 1) == []
    assert first.name not in recorder.started
    assert len(recorder.started) == len(sweep.runs) - 1


def test_a_folder_is_written_to_while_its_lock_is_held(tmp_path: Path) -> None:
    assert not is_written_to(tmp_path / "missing")
    with only_writer(tmp_path, "--output-dir"):
        assert is_written_to(tmp_path)
        assert is_written_to(tmp_path)  # asking does not give the lock back
    assert not is_written_to(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {}\nrun: 1\n", r"sweep.yaml:5: unknown key 'run'; nearest known: runs"),
        ("runs: {a: {set: {}}}\n", "run 'a': give it `config: FILE`"),
        ("runs: {a: {config: quickstart.yaml, seed: 1}}\n", "unknown key 'seed'.*seeds"),
        ("runs: {a: {config: [x]}}\n", "config: found .*; must be text"),
        ("runs: {a: {config: quickstart.yaml, seeds: [x]}}\n", "seeds: give a list of whole"),
        ("runs: {a: {config: quickstart.yaml, grid: {SEED: 3}}}\n", "SEED: give a list of values"),
        ("runs: {a: {config: quickstart.yaml, weights: b}}\n", "needs 'b', which no run before"),
        (
            "runs: {b: {config: quickstart_source_only.yaml, seeds: [3, 4]},\n"
            "  a: {config: quickstart.yaml, weights: b}}\n",
            "which has no seed 0",
        ),
        ("runs: {}\n", r"sweep.yaml:4: runs: there is none"),
        ("runs: {../out: {config: quickstart.yaml}}\n", "run '../out': a folder gets it"),
        ("runs: {/out: {config: quickstart.yaml}}\n", "run '/out': a folder gets it"),
        ("runs: {'': {config: quickstart.yaml}}\n", "run '': a folder gets it"),
        ("runs: {-a: {config: quickstart.yaml}}\n", "run '-a': a folder gets it"),
        ("runs: {a: {config: quickstart.yaml, set: {PLUGINS: [b]}}}\n", "PLUGINS: give them as"),
        (
            "runs: {a: {config: quickstart.yaml, set: {DATASETS.SOURCE: nowhere}}}\n",
            "run 'a/seed_0': DATASETS: no dataset is called 'nowhere'",
        ),
        (
            "runs: {b: {config: quickstart_source_only.yaml, seeds: [3, 4]},\n"
            "  a: {config: quickstart.yaml, weights: b, seeds: [3, 5]}}\n",
            "which has no seed 5",
        ),
        ('runs: {"a\\n": {config: quickstart.yaml}}\n', "a folder gets it"),
        ("runs: {jobs: {config: quickstart.yaml}}\n", "run 'jobs': the folder of this name"),
        (f"runs: {{{'n' * 201}: {{config: quickstart.yaml}}}}\n", "it has 201 bytes"),
        ("runs: {a: {config: quickstart.yaml, seeds: [3, 3]}}\n", "two runs are called 'a/seed_3'"),
        ("runs: {a: {config: quickstart.yaml, set: {OUTPUT_DIR: b}}}\n", "OUTPUT_DIR: follows"),
        ("runs: {a: {config: quickstart.yaml, grid: {SEED: [3]}}}\n", "SEED is set beside seeds"),
        (
            "runs: {a: {config: quickstart.yaml, set: {SOLVER.BASE_LR: 2024-01-01}}}\n",
            "SOLVER.BASE_LR: found datetime.date.*quote it",
        ),
        ("runs: {a: {config: quickstart.yaml, needs: [[b]]}}\n", "needs: found .*; must be texts"),
        ("plugins: [1]\nruns: {a: {config: quickstart.yaml}}\n", "plugins: found .*must be texts"),
        (
            "runs: {a: {config: quickstart.yaml, grid: {MODEL.HEAD.NAME: [Nope]}}}\n",
            "run 'a,NAME=Nope/seed_0': MODEL.HEAD.NAME: no head is called 'Nope'",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_sweep(sweep_file(tmp_path, text))


def test_a_value_with_slashes_stays_in_the_folder(tmp_path: Path) -> None:
    text = "runs: {a: {config: quickstart.yaml, grid: {MODEL.BACKBONE.WEIGHTS: [../x%, y/z]}}}\n"
    runs = read_sweep(sweep_file(tmp_path, text, seeds="")).runs
    assert [run.folder.relative_to(tmp_path / "out").parts for run in runs] == [
        ("a,WEIGHTS=..%2Fx%25",),
        ("a,WEIGHTS=y%2Fz",),
    ]


def test_names_beyond_the_first_plane_are_those_of_folders(tmp_path: Path) -> None:
    (run,) = read_sweep(
        sweep_file(tmp_path, "runs: {\U0001f600: {config: quickstart.yaml}}\n", "")
    ).runs
    assert run.folder == tmp_path / "out/\U0001f600"
    assert run.state == "waiting"


def test_plugins_of_configurations_are_loaded_but_not_given_twice(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("_BASE_: quickstart.yaml\nPLUGINS: [own.py]\n")
    text = f"plugins: [other.py]\nruns: {{a: {{config: {config}}}}}\n"
    path = sweep_file(tmp_path, text, seeds="")
    assert read_plugins(path) == ["other.py", "own.py"]
    (run,) = read_sweep(path).runs
    assert [word for word in run.arguments if word.endswith(".py")] == ["other.py"]


def test_of_several_seeds_one_has_to_be_named(tmp_path: Path) -> None:
    text = (
        "runs: {b: {config: quickstart_source_only.yaml, seeds: [3, 4]},\n"
        "  a: {config: quickstart.yaml, weights: b}}\n"
    )
    with pytest.raises(UserError, match="needs 'b', which has several seeds; give both the same"):
        read_sweep(sweep_file(tmp_path, text, seeds=""))


def test_what_was_done_with_other_settings_is_no_result(tmp_path: Path) -> None:
    text = "runs: {{a: {{config: quickstart_source_only.yaml, set: {{SOLVER.BASE_LR: {}}}}}}}\n"
    first = read_sweep(sweep_file(tmp_path, text.format(0.25), seeds=""))
    assert execute(first, Recorder(), 1) == []
    (first.runs[0].folder / "config.yaml").write_text(dump_config(first.runs[0].cfg))
    assert execute(first, Recorder(), 1) == []
    second, recorder = read_sweep(sweep_file(tmp_path, text.format(0.5), seeds="")), Recorder()
    with pytest.raises(UserError, match=r"out/a: done with other .*BASE_LR was 0.25, is 0.5; rem"):
        execute(second, recorder, 1)
    assert recorder.started == []


def test_two_sweeps_of_one_folder_do_not_run_at_once(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / "out", "output_dir"),
        pytest.raises(UserError, match="another run is writing there"),
    ):
        command([str(sweep_file(tmp_path))])


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ("{timeout_min: soon}", 'executor: Parameter "timeout_min" expected type'),
        ("{gpus: 1}", "executor: Parameter 'gpus' need"),
    ],
)
def test_parameters_of_the_executor_are_checked(
    tmp_path: Path, executor: str, message: str
) -> None:
    path = sweep_file(tmp_path, f"executor: {executor}\n{THREE}")
    with pytest.raises(UserError, match=message):
        command([str(path)])


def test_a_log_that_is_a_pipe_does_not_hold_up_the_status(tmp_path: Path) -> None:
    run = read_sweep(sweep_file(tmp_path)).runs[0]
    run.folder.mkdir(parents=True)
    os.mkfifo(run.folder / "log.txt")
    assert run.state == "waiting"


def test_settings_are_checked_before_anything_runs(tmp_path: Path) -> None:
    text = "runs: {a: {config: quickstart_source_only.yaml, set: {SOLVER.BASE_LT: 1}}}\n"
    with pytest.raises(ConfigError, match=r"run 'a/seed_0': SOLVER\.BASE_LT"):
        read_sweep(sweep_file(tmp_path, text))
    with pytest.raises(MissingFileError, match="no such sweep file"):
        read_sweep(tmp_path / "none.yaml")


def test_commands_and_states_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(sweep_file(tmp_path))
    assert command([path, "--print"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("t2sda train --config-file quickstart_source_only.yaml")
    assert lines[0].endswith("SEED=0")
    assert command([path, "--status"]) == 0
    assert capsys.readouterr().out.count("waiting") == 6
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_through_submitit(tmp_path: Path) -> None:
    text = "runs:\n  a: {config: quickstart_source_only.yaml}\n" + (
        "  b: {config: quickstart_source_only.yaml, set: {MODEL.BACKBONE.WEIGHTS: nowhere.pth}}\n"
    )
    path = sweep_file(tmp_path, "executor: {timeout_min: 30}\n" + text, seeds="")
    assert command([str(path), "--jobs", "2"]) == 1
    assert [run.state for run in read_sweep(path).runs] == ["done", "failed"]


def test_a_setting_that_is_newer_than_a_run_had_its_default_then(tmp_path: Path) -> None:
    text = (
        "runs: {{a: {{config: quickstart_source_only.yaml, set: {{RARE_CLASSES.ENABLED: {}}}}}}}\n"
    )
    run = read_sweep(sweep_file(tmp_path, text.format("false"), seeds="")).runs[0]
    run.folder.mkdir(parents=True)
    kept = dump_config(run.cfg).replace("RARE_CLASSES:\n  ENABLED: false\n", "RARE_CLASSES:\n")
    (run.folder / "config.yaml").write_text(kept)
    assert "ENABLED: false\n  TEMPERATURE" not in kept
    assert run.changes == []
    other = read_sweep(sweep_file(tmp_path, text.format("true"), seeds="")).runs[0]
    assert other.changes == ["RARE_CLASSES.ENABLED was false, is true"]
