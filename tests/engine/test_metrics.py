"""Metric files across a kill, and the console."""

from __future__ import annotations

import io
import json
import math
import os
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2sda.engine.metrics import (
    JsonLinesWriter,
    MetricsHook,
    ProgressHook,
    TensorBoardWriter,
    standard_console,
)
from t2sda.errors import UserError
from t2sda.logs import log_to_console
from t2sda.structures import RandomStreams, Step
from tests.engine.conftest import batch_at
from tests.full_disk import file_size_limit


def step_at(iteration: int) -> Step:
    step = Step(iteration, 0, batch_at(0), RandomStreams(0, iteration, 0))
    step.losses = {"loss_one": torch.tensor(0.5)}
    step.metrics = {"loss_one": 0.5, "lr": 1e-3}
    return step


def lines_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_period_and_the_last_step_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    hook = MetricsHook([JsonLinesWriter(path)], period=4, max_iter=10)
    hook.before_train(0)
    for iteration in range(10):
        hook.after_step(step_at(iteration))
    assert [line["iteration"] for line in lines_of(path)] == [4, 8, 10]
    assert lines_of(path)[0]["loss_one"] == 0.5
    assert lines_of(path)[0]["seconds_per_iteration"] > 0


def test_resuming_drops_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 2}\n{"iteration": 4}\n{"iteration": 6}\n{"itera')
    JsonLinesWriter(path).start(4)
    assert [line["iteration"] for line in lines_of(path)] == [2, 4]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path)
    writer.start(0)
    writer.write(3, {"loss_one": 0.5})
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss_one")] == [(3, 0.5)]


def shown(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    hook = ProgressHook(period=2, max_iter=4, console=console)
    hook.before_train(0)
    for iteration in range(4):
        hook.after_step(step_at(iteration))
    hook.after_train(4)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def logged(*, terminal: bool) -> tuple[str, str]:
    """What a command's console gets of the log, and what there is below the bar."""
    text = io.StringIO()
    with redirect_stdout(text), log_to_console():
        bar = shown(terminal=terminal)
    return text.getvalue(), bar


def test_a_pipe_gets_plain_lines() -> None:
    text, bar = logged(terminal=False)
    lines = text.splitlines()
    assert bar == ""
    assert [line.split()[1] for line in lines] == ["2/4", "4/4"]
    assert "loss_one 0.500" in lines[0]
    assert "eta 0:00:00" in lines[1]
    assert "\x1b" not in "".join(lines)


def test_a_person_gets_a_bar() -> None:
    text, bar = logged(terminal=True)
    assert text == "", "the same as the bar, so left out"
    assert "training" in bar
    assert "4/4" in bar


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\n", b'{"iteration": "\xe4"}\n', b"[1]\n", b"[" * 5000 + b"\n", b"{}\n\0\n"],
)
def test_a_damaged_line_is_dropped_and_the_others_stay(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 2}\n' + damage + b'{"iteration": 4}\n')
    JsonLinesWriter(path).start(4)
    assert [line["iteration"] for line in lines_of(path)] == [2, 4]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_null(tmp_path: Path, value: float) -> None:
    path = tmp_path / "metrics.jsonl"
    JsonLinesWriter(path).write(3, {"IoU": value, "mIoU": 0.5})
    assert path.read_text() == '{"iteration": 3, "IoU": null, "mIoU": 0.5}\n'


def test_a_full_disk_is_said_once_and_what_was_not_written_comes_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    hook = MetricsHook([JsonLinesWriter(path)], period=1, max_iter=9)
    hook.before_train(0)
    hook.write(1, {"loss": 1.0})
    with file_size_limit(path.stat().st_size + 5):  # the next line is cut short
        hook.write(2, {"loss": 2.0})
        hook.write(3, {"loss": 3.0})
    assert [line["iteration"] for line in lines_of(path)] == [1]
    assert (
        caplog.text.count("metrics cannot be written (No space left on device); training goes on")
        == 1
    )
    hook.write(4, {"loss": 4.0})
    assert [line["loss"] for line in lines_of(path)] == [1.0, 2.0, 3.0, 4.0]


def test_a_log_whose_folder_is_gone_is_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    hook = MetricsHook([JsonLinesWriter(tmp_path / "run/metrics.jsonl")], period=1, max_iter=9)
    hook.before_train(0)
    (tmp_path / "run").rmdir()
    hook.after_step(step_at(0))
    hook.after_train(1)
    assert "run/metrics.jsonl: metrics cannot be written (No such file or directory)" in caplog.text


def test_events_that_cannot_be_written_are_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = MetricsHook([TensorBoardWriter(tmp_path)], period=1, max_iter=9)
    hook.before_train(0)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    writer = hook.writers[0]
    assert isinstance(writer, TensorBoardWriter)
    assert writer._events is not None
    writer._events.add_scalar = refuse  # type: ignore[method-assign]
    hook.after_step(step_at(0))
    assert "metrics cannot be written (Permission denied)" in caplog.text


def test_a_log_that_is_a_pipe_is_refused_before_the_training(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="metrics.jsonl: is a pipe"):
        JsonLinesWriter(tmp_path / "metrics.jsonl").start(0)


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[31mred.png", "a\rb", "\u202egnp.png", "\udce4.png"])
def test_names_do_not_steer_the_console(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    standard_console().print(f"1/2 {name}")
    shown = capsys.readouterr().out
    assert shown.rstrip("\n").isprintable()
    assert "1/2" in shown
