"""Signals ask a run to stop; what was to be ignored stays so."""

from __future__ import annotations

import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from t2sda.signals import STOP_SIGNALS, stop_on_signals

RUN = """
import signal, sys, time
from t2sda.signals import stop_on_signals
asked = []
with stop_on_signals(lambda: asked.append(1), lambda text: print(text, flush=True)) as received:
    print("ready", flush=True)
    for _ in range(600):
        if asked:
            break
        time.sleep(0.05)
    print("writes its last line", flush=True)
open(sys.argv[1], "w").write(f"{received} {len(asked)}")
"""


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_asks_to_stop_and_handlers_come_back(number: signal.Signals) -> None:
    before = {item: signal.getsignal(item) for item in STOP_SIGNALS}
    asked, said = [], []
    with stop_on_signals(lambda: asked.append(True), said.append) as received:
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) == before[number]  # a second one ends the process
    assert (received, asked) == ([number], [True])
    assert said == [f"{number.name}: finishing this step, then a checkpoint"]
    assert {item: signal.getsignal(item) for item in STOP_SIGNALS} == before


def test_under_nohup_a_closed_terminal_changes_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals(lambda: None, print) as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_goes_on_to_its_checkpoint_when_its_terminal_is_closed(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", RUN, str(tmp_path / "end")])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)  # the system sends SIGHUP, and every write fails from now on
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "end").read_text() == "[1] 1"
