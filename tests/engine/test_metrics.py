"""Metric files across a kill, and the console."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2sda.engine.metrics import JsonLinesWriter, MetricsHook, ProgressHook, TensorBoardWriter
from t2sda.logs import log_to_console
from t2sda.structures import RandomStreams, Step
from tests.engine.conftest import batch_at


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
