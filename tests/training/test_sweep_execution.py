"""Which runs a sweep starts, and which folders it refuses to go on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t2sda.config import dump_config
from t2sda.engine.checkpoint import checkpoint_path
from t2sda.errors import UserError
from t2sda.files import only_writer
from t2sda.training import sweep_execution
from t2sda.training.sweep import Sweep, SweepRun, read_sweep
from t2sda.training.sweep_execution import check_folders, execute

TWO = """
output_dir: {folder}/out
set: {{SOLVER.MAX_ITER: 4, SOLVER.BASE_LR: {rate}}}
runs:
  source: {{config: quickstart_source_only.yaml}}
  adapted: {{config: quickstart.yaml, weights: source}}
"""


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_execution, "SECONDS_BETWEEN_LOOKS", 0.0)


def sweep_of(folder: Path, rate: float = 0.5) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(TWO.format(folder=folder, rate=rate))
    return read_sweep(path)


def trained(run: SweepRun, steps: int, started: str = "2026-01-01", **ended: object) -> None:
    """The folder of a run as it is after so many steps."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(dump_config(run.cfg))
    session = {"started": started, "next_iteration": steps, **ended}
    (run.folder / "run.json").write_text(json.dumps({"sessions": [session]}))
    if steps:
        checkpoint_path(run.folder, steps).touch()


class Ended:
    """A job that is over at once."""

    log_path = Path("jobs/7/7_0_log.err")

    def done(self) -> bool:
        return True

    def cancel(self) -> None:
        raise AssertionError("there is nothing to end")


def test_a_run_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    trained(sweep_of(tmp_path).runs[0], 2)
    check_folders(sweep_of(tmp_path))
    with pytest.raises(UserError, match=r"out/source: begun with other .*BASE_LR was 0.5, is 0.25"):
        execute(sweep_of(tmp_path, rate=0.25), lambda run: Ended(), 1)


def test_a_run_without_a_step_may_be_given_other_settings(tmp_path: Path) -> None:
    trained(sweep_of(tmp_path).runs[0], 0)
    check_folders(sweep_of(tmp_path, rate=0.25))


def test_a_running_run_must_have_the_settings_of_the_file(tmp_path: Path) -> None:
    run = sweep_of(tmp_path).runs[0]
    trained(run, 0)
    with (
        only_writer(run.folder, "--output-dir"),
        pytest.raises(UserError, match="begun with other settings"),
    ):
        check_folders(sweep_of(tmp_path, rate=0.25))


def test_a_run_that_began_before_what_it_needs_is_refused(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    trained(sweep.runs[0], 4, started="2026-01-01")
    trained(sweep.runs[1], 4, started="2026-01-02")
    check_folders(sweep)
    trained(sweep.runs[0], 4, started="2026-01-03")  # anew
    with pytest.raises(UserError, match=r"out/adapted: done before .*out/source was; remove"):
        check_folders(sweep)


@pytest.mark.parametrize(("by_hook", "state"), [(True, "done"), (False, "stopped")])
def test_a_run_that_a_hook_ended_is_done(tmp_path: Path, by_hook: bool, state: str) -> None:
    run = sweep_of(tmp_path).runs[0]
    trained(run, 3, ended_by_hook=by_hook)
    assert run.state == state


def test_a_run_that_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    sweep, submitted = sweep_of(tmp_path), []
    source, adapted = sweep.runs

    class Beaten(Ended):
        """Found its folder taken; when it is looked at, the other process still trains."""

        def done(self) -> bool:
            other.__enter__()
            return True

    def submit(run: SweepRun) -> Ended:
        submitted.append(run.name)
        if run is source:
            return Beaten()
        trained(adapted, 4)
        return Ended()

    def end_of_the_other(seconds: float) -> None:
        if source.state == "running" and len(asked) > 1:
            other.__exit__(None, None, None)
            trained(source, 4)
        asked.append(seconds)

    asked: list[float] = []
    source.folder.mkdir(parents=True)
    other = only_writer(source.folder, "--output-dir")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_execution.time, "sleep", end_of_the_other)
        assert execute(sweep, submit, 2) == []
    assert submitted == ["source", "adapted"]


def test_a_run_that_left_no_error_is_named_with_its_jobs_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed = execute(sweep_of(tmp_path), lambda run: Ended(), 1)
    assert [run.name for run in failed] == ["source", "adapted"]
    assert "source: failed (see jobs/7/7_0_log.err)" in caplog.text
