"""The alternate signal stack after OpenVINO was used: Python's handlers run on it."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from t2sda.runtime.signal_stack import _Stack, signal_stack_kept

pytest.importorskip("openvino")


def alternate_stack() -> tuple[int | None, int, int]:
    """(address, flags, size) of this thread's."""
    stack = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.flags, stack.size


def test_a_stack_that_was_replaced_is_put_back() -> None:
    before = alternate_stack()
    room = ctypes.create_string_buffer(1 << 16)
    with signal_stack_kept():
        other = _Stack(ctypes.addressof(room), 0, len(room))
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None) == 0
        assert alternate_stack()[0] == ctypes.addressof(room)
    assert alternate_stack() == before


PROGRAM = """
from tests.runtime.test_signal_stack import alternate_stack
from t2sda.runtime.openvino_file import open_core
before = alternate_stack()
core = open_core()  # its plugin stays loaded
print(before == alternate_stack())
"""


def test_openvino_leaves_the_stack_alone() -> None:
    # In a process of its own: the plugin replaces the stack when it is first loaded.
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "True\n"
