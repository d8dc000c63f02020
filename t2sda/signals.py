"""Signals that ask a run to stop: it finishes its step and writes a checkpoint first."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

STOP_SIGNALS = (
    signal.SIGINT,  # Ctrl-C
    signal.SIGTERM,  # of whoever ends the process
    signal.SIGHUP,  # the terminal was closed
    signal.SIGUSR1,  # what Slurm can be asked to send before the time is up
    signal.SIGXCPU,  # the processor time that was granted is used up
)


@contextlib.contextmanager
def stop_on_signals(
    request_stop: Callable[[], None], say: Callable[[str], None]
) -> Iterator[list[int]]:
    """Call `request_stop` at the first of STOP_SIGNALS; a second one ends the process at once.

    A signal that the process was started to ignore, as SIGHUP under nohup, stays ignored.

    Args:
        request_stop: returns at once.
        say: shows a line.

    Yields:
        The signals that came.
    """
    received: list[int] = []
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    taken = [
        number
        for number in STOP_SIGNALS
        if number == signal.SIGINT or previous[number] != signal.SIG_IGN
    ]
    on_terminal = [number for number in (1, 2) if os.isatty(number)]

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        request_stop()
        for item in taken:
            signal.signal(item, previous[item])
        if number == signal.SIGHUP:  # whatever is written to a closed terminal is an error
            _write_to_nowhere(on_terminal)
        say(f"{signal.Signals(number).name}: finishing this step, then a checkpoint")

    for number in taken:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number in taken:
            signal.signal(number, previous[number])


def _write_to_nowhere(descriptors: list[int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
