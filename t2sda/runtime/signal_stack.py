"""The alternate stack of signal handlers, kept from a library that replaces it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of <signal.h>."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put this thread's alternate signal stack back as it was before.

    OpenVINO's CPU plugin sets one of its own when it is loaded, and frees it when it is unloaded.
    Python's handlers run on the alternate stack, so the process then ends with SIGSEGV at the next
    signal: at the end of a child process, for one, where PyTorch's loader has installed a handler
    for that. Systems without `sigaltstack` have nothing to keep.
    """
    sigaltstack = getattr(ctypes.CDLL(None), "sigaltstack", None)
    if sigaltstack is None:
        yield
        return
    before = _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)
