"""What every fuzz target shares: an input is used, or refused with one message for its user.

Anything else is a fault: another exception, more than 20 s, a command that is run, or a result that
breaks the target's law (nothing is silently wrong).
"""

from __future__ import annotations

import functools
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from t2sda.errors import UserError, printable

TIME_LIMIT = 20
"""Seconds for one input."""
LONGEST_MESSAGE = 100_000
"""Characters; of a longer one nobody finds the part that matters."""
_COMMANDS = frozenset(
    ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect")
)

Plant = Callable[[pytest.MonkeyPatch], None]


class Hang(BaseException):
    """An input took longer than TIME_LIMIT; not an Exception, so that nobody catches it."""


@dataclass(frozen=True, repr=False)
class Target:
    """A way into the program.

    Attributes:
        inputs: hostile ones.
        run: takes an input and an empty folder; asserts its law on what comes out.
        plants: each takes a check of ours away, which `run` must then notice.
    """

    inputs: st.SearchStrategy[Any]
    run: Callable[[Any, Path], None]
    plants: tuple[Plant, ...]


def check(target: Target, num_inputs: int) -> None:
    """Try `num_inputs` inputs, the same ones every time; raises the first fault, made small."""
    _each(target, num_inputs, functools.partial(try_input, target))


def first_fault(target: Target, num_inputs: int) -> str | None:
    """The first fault among `num_inputs` inputs, by place; None if there is none."""
    use = functools.partial(try_input, target)
    try:
        _each(target, num_inputs, use, phases=[Phase.generate], report_multiple_bugs=False)
    except (Exception, Hang) as error:
        return _place(error)
    return None


def faults(target: Target, num_inputs: int) -> dict[str, Any]:
    """The different faults among `num_inputs` inputs, by place, each with its last input."""
    found: dict[str, Any] = {}
    _each(target, num_inputs, lambda value: found.update(_fault(target, value)))
    return found


def _each(target: Target, num_inputs: int, use: Callable[[Any], None], **options: Any) -> None:
    @settings(
        max_examples=num_inputs,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    @given(target.inputs)
    def each(value: Any) -> None:
        use(value)

    each()


def _fault(target: Target, value: Any) -> dict[str, Any]:
    """Place and input, if there is one."""
    try:
        try_input(target, value)
    except (Exception, Hang) as error:
        return {_place(error): value}
    return {}


def try_input(target: Target, value: Any) -> None:
    """Run one input in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, _time_limit(), _no_command():
        try:
            target.run(value, Path(folder))
        except UserError as error:
            message = str(error)
            assert message.strip(), "a message that says nothing"
            assert len(message) < LONGEST_MESSAGE, "a message that nobody reads to its end"
            assert "\x1b" not in printable(message)


def _place(error: BaseException) -> str:
    """Kind and the last line of the program that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/t2sda/" in frame.filename or "/export/" in frame.filename]
    last = (own or frames)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}"


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(_: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {TIME_LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_watched: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event in _COMMANDS:
        _watched.append(f"{event} {arguments}")


sys.addaudithook(_audit)


@contextmanager
def _no_command() -> Iterator[None]:
    global _watched
    _watched = []
    try:
        yield
        assert not _watched, f"run: {_watched}"
    finally:
        _watched = None
